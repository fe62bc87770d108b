"""The reward function has its limits, gets the prompt, also where verl hands over no more than prompt and
answer, and long answers cost what DAPO says."""

import asyncio
import math
import os

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager

from launcher.progress import TOO_MANY_RAISED
from launcher.results import raised
from plugins.patches.reward_infos import check_failed
from plugins.rollout.reward_manager import column

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
ROW = {"data_source": "s", "reward_model": {"ground_truth": "3"}, "extra_info": {"db": "x.sqlite"}}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def score(tokenizer, tmp_path):
    """`score(body, answer, fields)` → what the manager says; `body` is that of the reward function."""

    def run(body: str, answer="Three.", fields=ROW, overrides=(), **served) -> dict:
        file = tmp_path / f"reward_{len(list(tmp_path.iterdir()))}.py"
        file.write_text(f"import os, time\n{body}\n")
        config = OmegaConf.create(
            {
                "lab": {"reward_limits": {"timeout_s": 60, "memory_mib": 512, "processes": 1}},
                "algorithm": {"filter_groups": {"metric": None}},
                "reward": {
                    "custom_reward_function": {
                        "path": str(file) if body else None,
                        "name": "score",
                    },
                    "reward_manager": {
                        "source": "importlib",
                        "name": "RewardManager",
                        "module": {"path": "pkg://plugins.rollout.reward_manager"},
                    },
                    "reward_model": {"enable": bool(served), "enable_resource_pool": True},
                },
            }
        )
        config.merge_with_dotlist(list(overrides))
        ids = torch.tensor([tokenizer(answer + tokenizer.eos_token)["input_ids"]])
        batch = TensorDict({"responses": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1)
        columns = {name: column(value) for name, value in fields.items()}
        data = DataProto(batch, {"raw_prompt": np.array([MESSAGES], dtype=object), **columns})

        async def managed():
            return await load_reward_manager(config, tokenizer, **served).run_single(data)

        return asyncio.run(managed())

    return run


SAYS = """
def score(data_source, solution_str, ground_truth, extra_info, **options):
    return {"score": 0.5, "seen": [data_source, solution_str, ground_truth, extra_info, options], "pid": os.getpid()}
"""
SERVED = {
    "reward_router_address": "host:1",
    "reward_model_tokenizer": "the model's",
}


def test_the_function_gets_row_prompt_and_options(score):
    kwargs = "reward.custom_reward_function.reward_kwargs"
    result = score(
        SAYS, overrides=[f"{kwargs}.weights.sql=${{{kwargs}.half}}", f"{kwargs}.half=0.5"]
    )
    info = result["reward_extra_info"]
    source, answer, reference, extra, options = info["seen"]
    assert (result["reward_score"], info["score"], info["stopped"]) == (0.5, 0.5, "no")
    assert (source, answer, reference) == ("s", "Three.", "3")
    assert extra["messages"] == MESSAGES and extra["db"] == "x.sqlite"
    assert options == {"weights": {"sql": 0.5}, "half": 0.5}
    assert info["pid"] != os.getpid()
    assert ROW["extra_info"] == {"db": "x.sqlite"}  # the row's own is as it was


def test_a_function_that_is_served_a_model(score):
    info = score(SAYS, **SERVED)["reward_extra_info"]
    assert info["seen"][-1] == SERVED


def test_a_model_that_takes_turns(score):
    """verl then passes on no more than prompt and answer."""
    own = ["reward.reward_model.enable_resource_pool=false"]
    source, answer, reference, extra, _ = score(SAYS, fields={}, overrides=own, **SERVED)[
        "reward_extra_info"
    ]["seen"]
    assert (source, answer, reference, extra["messages"]) == (None, "Three.", None, MESSAGES)
    nothing = "def score(**row): return float('nan')"
    assert math.isnan(score(nothing, **SERVED)["reward_score"])
    with pytest.raises(RuntimeError, match=r"lab\.reward_model\.gpus=1"):
        score(nothing, overrides=own, **SERVED)


def test_limits_are_those_of_the_config(score):
    hangs = "def score(**row): time.sleep(1000)"
    result = score(hangs, overrides=["lab.reward_limits.timeout_s=0.3"])
    assert math.isnan(result["reward_score"])
    assert result["reward_extra_info"]["stopped"] == "timeout"
    eats = "def score(**row): return len(bytearray(1 << 30))"
    assert score(eats)["reward_extra_info"]["stopped"] == "memory"


def test_a_reward_that_raises_costs_its_answer_and_is_told(score, caplog):
    result = score("def score(**row): return row['extra_info']['db2']")
    assert math.isnan(result["reward_score"]) and result["reward_extra_info"]["failed"] == 1
    (block,) = raised(line for line in caplog.text.splitlines())
    assert (
        "raised KeyError: 'db2'" in block[0]
        and "in score" in block[1]
        and "data_source='s'" in block[2]
    )
    assert score("def score(**row): return 1.0")["reward_extra_info"]["failed"] == 0


@pytest.mark.parametrize(
    ("failed", "ends"), [(0, False), (1, False), (2, False), (3, True), (20, True)]
)
def test_more_failures_than_the_stated_share_end_the_run(composer, failed, ends):
    config = composer("lab.reward_limits.failed_share=0.1")
    infos = [1.0] * failed + [0.0] * (19 - failed) + [None]
    if not ends:
        return check_failed(infos, config)
    with pytest.raises(RuntimeError, match=r"failed_share=0\.1 allows 2") as caught:
        check_failed(infos, config)
    assert TOO_MANY_RAISED.search(
        f"RuntimeError: {caught.value}"
    )  # so the launcher knows the cause


def test_verls_own_functions_are_limited_too(score):
    fields = ROW | {"data_source": "openai/gsm8k"}
    result = score("", "so #### 3", fields)
    assert result["reward_score"] == result["reward_extra_info"]["acc"] == 1.0
    assert result["reward_extra_info"]["stopped"] == "no"
    # a sandbox is asked from here, as verl does it
    sandbox = ["reward.sandbox_fusion.url=http://127.0.0.1:1"]
    result = score("", "so #### 3", fields, sandbox)
    assert result == {"reward_score": 1.0, "reward_extra_info": {"acc": 1.0}}


OVERLONG = "reward.reward_kwargs"


@pytest.mark.parametrize(("tokens", "penalty"), [(6, 0.0), (7, -0.25), (8, -0.5), (10, -1.0)])
def test_long_answers_cost_what_they_do_in_verl(score, tokenizer, tokens, penalty):
    """In the last 4 of 10 tokens."""
    answer = tokenizer.decode(tokenizer("a b c d e f g h i j k l")["input_ids"][: tokens - 1])
    assert len(tokenizer(answer + tokenizer.eos_token)["input_ids"]) == tokens
    buffer = f"{OVERLONG}.overlong_buffer_cfg"
    shaping = [f"{OVERLONG}.max_resp_len=10", f"{buffer}.enable=true", f"{buffer}.len=4",
               f"{buffer}.penalty_factor=1.0", f"{buffer}.log=true"]  # fmt: skip
    right = "def score(**row): return {'score': 2.0, 'acc': 1.0}"
    result = score(right, answer, overrides=shaping)
    info = result["reward_extra_info"]
    assert (result["reward_score"], info["overlong_reward"]) == (2.0 + penalty, penalty)
    assert (info["overlong"], info["score"], info["acc"]) == (float(penalty < 0), 2.0, 1.0)
    verls = ["reward.reward_manager.source=register", "reward.reward_manager.name=dapo"]
    expected = score(right, answer, overrides=[*shaping, *verls])["reward_score"]
    assert result["reward_score"] == pytest.approx(float(expected))
    nothing = "def score(**row): return float('nan')"
    assert "overlong" not in score(nothing, answer, overrides=shaping)["reward_extra_info"]
    assert score(right, answer, overrides=[*shaping, f"{buffer}.enable=false"])["reward_score"] == 2
    with pytest.raises(ValueError, match="must be from 1 to"):
        score(right, answer, overrides=[*shaping, f"{buffer}.len=11"])


def test_groups_are_judged_by_acc_or_else_by_score(score):
    judged = ["algorithm.filter_groups.metric=acc_or_score"]
    for result, value in {"{'score': 0.1, 'acc': 0.0}": 0.0, "{'score': 0.1}": 0.1}.items():
        info = score(f"def score(**row): return {result}", overrides=judged)["reward_extra_info"]
        assert info["acc_or_score"] == value
    assert "acc_or_score" not in score("def score(**row): return 1.0")["reward_extra_info"]


def test_a_scored_sample_is_a_sign_of_life(score, tmp_path, monkeypatch):
    """The watchdog reads it off the time of metrics.jsonl; a run whose folder isn't here has none."""
    file = tmp_path / "metrics.jsonl"
    file.write_text("mine")
    os.utime(file, (1, 1))
    body = "def score(**_): return 0.5"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(file))
    assert score(body)["reward_score"] == 0.5
    assert file.stat().st_mtime > 1 and file.read_text() == "mine"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "nowhere/metrics.jsonl"))
    assert score(body)["reward_score"] == 0.5
    assert not (tmp_path / "nowhere").exists()
