"""`make plan`: the table, what helps, an exit status. Its figures: tests/preflight/memory/test_plan.py."""

import pytest

from tools.plan import main

pytestmark = pytest.mark.usefixtures("own_hydra")


@pytest.mark.parametrize(
    ("words", "status", "texts"),
    [
        (["hw=rtx4070"], 0, ["LoRA of rank 32 on 1 × 11.5 GiB", "rollout", "fits: ", "a step: about"]),
        (["hw=a100", "model=qwen2_5_7b"], 1, ["DOES NOT FIT", "It fits with: lab.lora_rank=32"]),
        (["hw=a100", "model=qwen2_5_7b", "lab.plan=auto"], 0, ["lab.plan=auto chose", "lab.lora_rank=32 "]),
        (["hw=h100x8", "lab.hw.nodes=4"], 0, ["4 nodes of 8 × 79.1 GiB"]),
        (["hw=a100", "trainer.total_training_steps=100"], 0, ["100 steps: about"]),
        (["hw=a100", "lab.model.path=some/model"], 0, ["no plan: nothing is known of some/model"]),
        (["hw=a100", "lab.plan=off"], 0, ["no plan: lab.plan=off"]),
        (["hw=a100", "data.train_batch_size=x"], 0, ["no plan: data.train_batch_size=x must be"]),
    ],
)  # fmt: skip
def test_what_it_tells(capsys, words, status, texts):
    assert main(words) == status
    out = capsys.readouterr().out
    assert all(text in out for text in texts), out


@pytest.mark.parametrize(
    "words", [["hw=rtx4070"], ["algo=ppo", "hw=a100"], ["algo=sft", "hw=a10g"]]
)
def test_a_line_fits_into_a_terminal(capsys, monkeypatch, words):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and "\x1b" not in out


def test_a_mistake_is_a_line(capsys):
    assert main(["hw=a10"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown hw= 'a10'. Did you mean")
