"""Real runs whose answers are graded over HTTP, by a server of the test that often fails."""

import hashlib
import json
import math
from pathlib import Path

import pytest
from aiohttp import web
from judge_server import KEY, Server, answer_in, completion, graded, status

pytestmark = pytest.mark.real
OPTIONS = "reward.custom_reward_function.reward_kwargs"
CAP = 56  # validation asks for 16 at most, and a step for 32: it is reached after the second has begun
FILES = {"validation/0": 0, "rollouts/1": 1, "rollouts/2": 2, "validation/2": 2}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def opinion(answer: str) -> int | None:
    """What the judge thinks of an answer; of every fourth, nothing."""
    number = int(hashlib.sha256(answer.encode()).hexdigest(), 16)
    return None if number % 4 == 3 else number % 11


def with_key(*folders: Path) -> list[Path]:
    """Files that hold most of the key."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if KEY[:12].encode() in file.read_bytes()]


def test_a_judged_run(run, tmp_path):
    """Scores are the judge's, failures are masked and counted, and the cap holds."""
    leaks, paid = [], []

    async def behave(number, payload, request):
        if number % 5 == 3:  # an error that repeats the key
            body = {"error": {"message": request.headers["Authorization"]}}
            return web.json_response(body, status=503, headers={"Retry-After": "0.1"})
        paid.append(number)
        if len(paid) == CAP:  # Ray's logs are there as long as the run
            leaks.extend(with_key(tmp_path, *Path("/tmp").glob("verl-lab*")))
        score = opinion(answer_in(payload))
        return completion("no idea") if score is None else graded(payload, score)

    with Server(behave) as server:
        result = run("reward=judge", f"{OPTIONS}.base_url={server.url}", f"{OPTIONS}.model=m",
                     f"{OPTIONS}.backoff_s=0.01", f"{OPTIONS}.max_calls={CAP}",
                     f"{OPTIONS}.give_up_after=null")  # fmt: skip
    assert len(paid) == CAP < len(server.payloads)
    assert not leaks and not with_key(tmp_path)
    calls = 0.0
    for file, step in FILES.items():
        lines = (result.folder / f"{file}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:  # what could not be graded is dumped as 0 or null
            assert row["score"] in (None, 0, pytest.approx((opinion(row["output"]) or 0) / 10))
        if "rollouts" in file:  # verl dumps the score alone
            calls += result.at(step, "reward/calls") * len(rows)
            assert result.at(step, "reward/masked") == result.at(step, "reward/judge_failed")
            assert math.isfinite(result.at(step, "actor/grad_norm"))
            continue
        calls += sum(row["calls"] for row in rows)
        for row in rows:
            thought, failed = opinion(row["output"]), row["outcome"] in ("spend_cap", "bad_json")
            assert row["masked"] == row["judge_failed"] == float(failed)
            assert failed or row["score"] == pytest.approx(thought / 10)
    assert calls == pytest.approx(len(server.payloads))
    assert result.at(1, "reward/outcome/ok") > 0.2 and result.at(1, "actor/grad_norm") > 0
    assert result.at(2, "reward/outcome/spend_cap") > 0 and result.at(2, "reward/spent") > 0.5


def test_a_wrong_key_ends_the_run(run):
    """With its reason in the log, instead of masking every sample."""
    with Server(status(401, message=f"no such key: {KEY}")) as server:
        result = run(
            "reward=judge", f"{OPTIONS}.base_url={server.url}", f"{OPTIONS}.model=m", status=1
        )
    why = "reward=judge can't go on: status 401, the key is not accepted: model='m'"
    assert why in result.log()
    assert len(server.payloads) <= 16 and not with_key(result.folder)
    assert KEY[:12] not in result.done.stdout
