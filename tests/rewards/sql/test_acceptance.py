"""Verdicts of the public evaluators, and hostile cases, where that data lies beside this folder."""

import asyncio
import hashlib
import json
import time

import pytest
from helpers import SHARED

from rewards.sql import compute_score

DATA = SHARED / "sql"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no acceptance data at {DATA}")

RULES = {
    "spider": {"mode": "spider", "keep_distinct": False},
    "spider_keep_distinct": {"mode": "spider", "keep_distinct": True},
    "bird": {"mode": "bird"},
}


def rows(name):
    with open(DATA / name, encoding="utf-8") as lines:
        return list(map(json.loads, lines))


@pytest.mark.parametrize("rule", RULES)
def test_verdicts(rule):
    cases = rows("verdicts.jsonl")

    async def run():
        return await asyncio.gather(
            *(
                compute_score(
                    case["dataset"],
                    f"```sql\n{case['pred']}\n```",
                    case["gold"],
                    {"db": str(DATA / case["db_path"])},
                    **RULES[rule],
                )
                for case in cases
            )
        )

    results = asyncio.run(run())
    wrong = [
        (case["case_id"], case["perturbation"], result["outcome"], case["safe_expected"][rule])
        for case, result in zip(cases, results, strict=True)
        if result["acc"] != case["safe_expected"][rule]
    ]
    assert len(results) > 5000
    assert wrong == []


def test_every_accepted_reference_is_accepted():
    cases = {case["gold"]: case for case in rows("verdicts.jsonl") if case["alt_golds"]}.values()

    async def run(references_of):
        return await asyncio.gather(
            *(
                compute_score(
                    "",
                    f"```sql\n{answer}\n```",
                    references_of(case),
                    {"db": str(DATA / case["db_path"])},
                    keep_distinct=False,
                )
                for case in cases
                for answer in case["alt_golds"]
            )
        )

    together = asyncio.run(run(lambda case: [case["gold"], *case["alt_golds"]]))
    alone = asyncio.run(run(lambda case: case["gold"]))
    assert all(result["acc"] == 1.0 for result in together)
    assert not all(result["acc"] == 1.0 for result in alone)


@pytest.mark.parametrize("mode", ["spider", "bird", "strict"])
def test_hostile_cases(mode):
    cases = rows("adversarial.jsonl")
    if mode != "spider":  # how results are compared is no matter for those that run until stopped
        cases = [case for case in cases if case["expect"]["max_wall_s"] <= 1]
    files = {DATA / case["db"] for case in cases}

    def digests():
        return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    async def run():
        wrong = []
        for case in cases:
            expect, text = case["expect"], case["response"]
            if text is None:
                text = f"```sql\n{case['sql']}\n```" if case["sql"] is not None else ""
            info = {"db": str(DATA / case["db"])}
            start = time.monotonic()
            result = await compute_score(
                "", text, case["gold"], info, mode=mode, keep_distinct=False
            )
            seconds = time.monotonic() - start
            match = (expect["match_by_mode"] or {}).get(mode, expect["match"])
            good = match is None or result["acc"] == float(match)
            # "ok", match and mismatch say that it ran; which of them, `match` says for the mode.
            classes = set(expect["error_class"])
            # A machine fast enough may come to the end of what stops another by its time limit.
            if classes & {"ok", "match", "mismatch", "timeout"}:
                classes |= {"match", "mismatch"}
            good = good and result["outcome"] in classes and seconds < expect["max_wall_s"]
            if not good:
                wrong.append((case["id"], case["category"], result["outcome"], round(seconds, 2)))
            alive = await compute_score("", "```sql\nSELECT 1\n```", "SELECT 1", info, mode=mode)
            assert alive["acc"] == 1.0
        return wrong

    before = digests()
    assert asyncio.run(run()) == []
    assert digests() == before
