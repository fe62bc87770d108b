"""Registers the files of algos/ with verl: the file's name is the name that a config selects.

* `compute_advantage(token_level_rewards, response_mask, index, config, **_)` → the estimator
  `algorithm.adv_estimator=NAME`;
* `compute_policy_loss(old_log_prob, log_prob, advantages, response_mask, ...)` → the loss
  `actor_rollout_ref.actor.policy_loss.loss_mode=NAME`.
"""

import importlib
from pathlib import Path

import wrapt

FOLDER = Path(__file__).parent.parent / "algos"


def names() -> list[str]:
    """Names of the files of algos/ (private helpers start with an underscore)."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def register() -> None:
    """Register everything once verl imports its own algorithms."""

    @wrapt.when_imported("verl.trainer.ppo.core_algos")
    def _register(core_algos) -> None:
        for name in names():
            module = importlib.import_module(f"algos.{name}")
            if hasattr(module, "compute_advantage"):
                core_algos.register_adv_est(name)(module.compute_advantage)
            if hasattr(module, "compute_policy_loss"):
                core_algos.register_policy_loss(name)(module.compute_policy_loss)
