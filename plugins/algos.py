"""Registers the files of algos/ with verl: the file's name is the name that a config selects.

* `compute_advantage(token_level_rewards, response_mask, index, config, *, OPTION=DEFAULT, **_)` → the
  estimator `algorithm.adv_estimator=NAME`. Its keyword-only arguments are its options, set by
  `algorithm.NAME.OPTION`;
* `compute_policy_loss(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config,
  rollout_is_weights)` → the loss `actor_rollout_ref.actor.policy_loss.loss_mode=NAME`. `config` is
  verl's `actor_rollout_ref.actor`; verl refuses keys of ours in it, so a loss has no options.
"""

import ast
import contextlib
import functools
import importlib
import re
from pathlib import Path
from typing import Any

import wrapt

FOLDER = Path(__file__).parent.parent / "algos"
KINDS = {  # function in a file of algos/ → verl's decorator that takes it
    "compute_advantage": "register_adv_est",
    "compute_policy_loss": "register_policy_loss",
}
VERLS = {"token_level_rewards", "response_mask", "index", "config", "reward_baselines"}


def names(function: str) -> list[str]:
    """Names of the files of algos/ that define `function`, without importing any (trainers import verl)."""
    files = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    return [path.stem for path in files if re.search(rf"(?m)^def {function}\(", path.read_text())]


def options(name: str) -> dict[str, Any]:
    """Options of the estimator in algos/NAME.py with their defaults, without importing it.

    A default that is no literal is given as None.
    """
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    arguments = next(f.args for f in functions if f.name == "compute_advantage")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = {}
    for argument, default in pairs:
        if argument.arg not in VERLS:
            found[argument.arg] = None
            with contextlib.suppress(ValueError):  # a default that is no literal
                found[argument.arg] = ast.literal_eval(default) if default else None
    return found


def uses_steps(estimator: str) -> bool:
    """Whether an estimator is a file of algos/ that says `STEP_REWARDS = True`."""
    file = FOLDER / f"{estimator}.py"
    return file.is_file() and "\nSTEP_REWARDS = True" in file.read_text()


def with_options(name: str, function):
    """An estimator that takes its options from `algorithm.NAME`, of the config that verl passes."""

    @functools.wraps(function)
    def estimator(*args, config=None, **kwargs):
        return function(*args, config=config, **kwargs, **((config or {}).get(name) or {}))

    return estimator


def register() -> None:
    """Register everything once verl imports its own algorithms."""

    @wrapt.when_imported("verl.trainer.ppo.core_algos")
    def _register(core_algos) -> None:
        for function, decorator in KINDS.items():
            for name in names(function):
                ours = getattr(importlib.import_module(f"algos.{name}"), function)
                if function == "compute_advantage":
                    ours = with_options(name, ours)
                getattr(core_algos, decorator)(name)(ours)
