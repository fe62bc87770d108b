"""What fails without an error is told while it happens: real runs that are broken on purpose."""

import json

import pytest
from helpers import ROOT

pytestmark = pytest.mark.real


def alerts(result) -> dict[str, dict]:
    """Of run.json, by kind."""
    attempt = json.loads((result.folder / "run.json").read_text())["attempts"][-1]
    return {alert["kind"]: alert for alert in attempt["alerts"]}


def told(result, title: str) -> int:
    """How often the screen told of it as it began."""
    return result.done.stdout.count(f"alert: {title}")


def test_a_learning_rate_of_0(run, warm):
    result = run("actor_rollout_ref.actor.optim.lr=0", "trainer.total_training_steps=3",
                 "trainer.val_before_train=false", "trainer.test_freq=-1", f"lab.model.path={warm.folder}")  # fmt: skip
    for step in (1, 2, 3):
        assert result.at(step, "actor/grad_norm") > 1e-4
        assert result.at(step, "actor/weights_changed") == 0
        assert 0 <= result.at(step, "groups/same_score") <= 1
    found = alerts(result)
    assert list(found) == ["unchanged_weights"], found
    assert (found["unchanged_weights"]["first"], found["unchanged_weights"]["last"]) == (2, 3)
    assert told(result, "the weights do not change") == 1
    assert "looked wrong in this run" in result.done.stdout


def test_an_adapter_that_never_reaches_vllm_and_wandb_with_a_wrong_key(run, warm, monkeypatch):
    """verl issues 7495 and 4904: neither ends the run, and both are told."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/support"))
    monkeypatch.setenv("WANDB_API_KEY", "wrong")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    result = run("lab.lora_rank=8", f"lab.model.path={warm.folder}", "trainer.total_training_steps=6",
                 "trainer.val_before_train=false", "trainer.test_freq=-1", "logger=wandb",
                 "actor_rollout_ref.actor.optim.lr=0.01",
                 "lab.env.VERL_USE_EXTERNAL_MODULES='plugins.register,stale_rollout'")  # fmt: skip
    assert abs(result.at(1, "rollout_corr/kl")) < 1e-5 < result.at(6, "rollout_corr/kl")
    assert all(result.at(step, "actor/weights_changed") > 0 for step in range(1, 7))
    assert "rollout_drift" in alerts(result)
    assert told(result, "the rollout samples from another policy") == 1
    assert "wandb did not start (AuthenticationError" in result.done.stdout
    assert list((result.folder / "wandb").glob("offline-run-*/*.wandb"))
