"""Real self-play: two rounds to the end; Ctrl-C in a nested run, and going on from there."""

import json
import math
import signal
import time
from collections import defaultdict

import pyarrow.parquet as pq
import pytest
import yaml
from helpers import Run, leftovers
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep import _schema
from launcher import stages
from launcher.checkpoints import latest_model, tracked

pytestmark = pytest.mark.real
SHAPING = "reward.custom_reward_function.reward_kwargs.shaping"


def lines_of(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def greedy(model_path, messages: list[dict]) -> str:
    """The greedy answer of transformers itself."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, do_sample=False, max_new_tokens=48)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_two_rounds(run, warm):
    result = run("algo=self_play", f"lab.model.path={warm.folder}", f"{SHAPING}=arctic", "trainer.test_freq=1",
                 "self_play.pairs_per_prompt=2", "self_play.margin=0.05", "self_play.epochs=2")  # fmt: skip
    folder = result.folder
    assert set(result.metrics) == {0, 1, 2}
    for step in (0, 1, 2):
        held_out = lines_of(folder / f"validation/{step}.jsonl")
        accuracy = sum(line["acc"] for line in held_out) / len(held_out)
        assert result.at(step, "val-core/sql_demo/acc/mean@1") == pytest.approx(accuracy)
        assert len(held_out) == 16
    # held-out answers are greedy, though sampled ones come from the same job
    asked = {row["row_id"]: row["prompt"]
             for row in pq.read_table(folder / "round_1/sample.parquet").to_pylist()}  # fmt: skip
    for line in lines_of(folder / "validation/0.jsonl")[:4]:
        assert greedy(latest_model(warm.folder), asked[line["row_id"]]) == line["output"]
    for step in (1, 2):
        # the answers: 8 to each of 2 x 32 prompts, sampled and not greedy
        answers = lines_of(folder / f"rollouts/{step}.jsonl")
        texts = defaultdict(set)
        for line in answers:
            texts[line["row_id"].rpartition("-")[0]].add(line["output"])
        assert len(answers) == 512 and len(texts) == 64
        assert sum(len(t) > 1 for t in texts.values()) > 32
        mean = sum(line["score"] for line in answers) / len(answers)
        assert result.at(step, "critic/score/mean") == pytest.approx(mean)
        # the pairs, each of two answers that were given and scored so
        scores = {(line["input"], line["output"]): line["score"] for line in answers}
        outputs = {output: score for (_, output), score in scores.items()}
        pairs = pq.read_table(folder / f"round_{step}/pairs.parquet").to_pylist()
        assert len(pairs) == result.at(step, "self_play/pairs") > 10
        for row in pairs:
            assert _schema.check("preference", row) == []
            assert {row["chosen"][0]["content"], row["rejected"][0]["content"]} <= set(outputs)
        # DPO went from log 2 downwards
        assert result.at(step, "dpo/loss") < math.log(2) - 0.01
        assert result.at(step, "dpo/grad_norm") > 0
        assert result.at(step, "timing_s/step") > 5
    # each round began with the model of the round before
    begun = [yaml.safe_load((folder / f"round_{t}/{name}/resolved.yaml").read_text())["lab"]["model"]["path"]
             for t, name in ((1, "sample"), (1, "dpo"), (2, "sample"), (2, "dpo"), (2, "validate"))]  # fmt: skip
    assert begun[0] == begun[1] == str(latest_model(warm.folder))
    assert begun[2] == begun[3] == str(latest_model(folder / "round_1/dpo"))
    assert begun[4] == str(latest_model(folder / "round_2/dpo"))
    # the last model is the run's, and it has learnt
    first, second = (AutoModelForCausalLM.from_pretrained(path, dtype="float32")
                     for path in (begun[2], latest_model(folder)))  # fmt: skip
    change = max(
        (a - b).abs().max() for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert 0 < change < 0.1
    assert not list(folder.rglob("optim*.pt"))
    # what the user saw
    assert "round 1 of 2: DPO on" in result.done.stdout
    assert len(result.done.stdout.splitlines()) < 20, result.done.stdout


def test_ctrl_c_in_a_stage_and_going_on(start, run, warm, tmp_path):
    """A round that was cut in its DPO has the answers, pairs, losses and weights of one without a cut."""
    before, folder, train = leftovers(), tmp_path / "run", "+self_play.train.trainer"
    common = ["algo=self_play", f"lab.model.path={warm.folder}", "trainer.total_training_steps=1",
              "trainer.val_before_train=false", "trainer.test_freq=-1", "self_play.epochs=1000", "self_play.prompts=32",
              "+self_play.train.optim.lr_scheduler_type=constant", f"{train}.save_freq=1"]  # fmt: skip
    process, stage = start(*common, folder=folder), folder / "round_1/dpo"
    deadline = time.time() + 300
    while (tracked(stage / "checkpoints") or 0) < 2:
        assert process.poll() is None and time.time() < deadline, process.stdout.read()
        time.sleep(0.05)
    asked = time.time()
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "stopped" in output and "Traceback" not in output
    assert time.time() - asked < 15
    assert leftovers() <= before, leftovers() - before
    assert [a["exit"] for a in stages.attempts(stage)] == [130]

    steps = f"{train}.total_training_steps={tracked(stage / 'checkpoints') + 2}"
    resumed = run(f"resume={folder}", steps, folder=folder)
    assert len(stages.attempts(folder / "round_1/sample")) == 1  # it had ended: not again
    assert len(stages.attempts(stage)) == 2
    assert latest_model(folder).parent.name == "global_step_1"
    whole = run(*common, steps, folder=tmp_path / "whole")
    assert resumed.figures() == whole.figures() and set(whole.figures()) == {1}
    assert whole.at(1, "dpo/loss") < math.log(2)
    losses = [Run(one.folder / "round_1/dpo", one.done).figures() for one in (resumed, whole)]
    assert losses[0] == losses[1]
    assert resumed.samples(1) == whole.samples(1)
    models = [latest_model(one.folder) / "model.safetensors" for one in (resumed, whole)]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_no_pairs_is_told(run, tmp_path):
    """Random weights write no SQL: every answer is as bad as any other."""
    result = run(
        "algo=self_play", "trainer.val_before_train=false", "self_play.prompts=8", status=1
    )
    assert "no pairs: no two answers to any of 8 prompts differ" in result.done.stdout
    assert not (result.folder / "round_1/dpo").exists()
