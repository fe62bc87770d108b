"""Registers the files of algos/ with verl: the file's name is the name that a config selects.

* `compute_advantage(token_level_rewards, response_mask, index, config, *, OPTION=DEFAULT, **_)` → the
  estimator `algorithm.adv_estimator=NAME`. Its keyword-only arguments are its options, set by
  `algorithm.NAME.OPTION`; `STEP_REWARDS = True` in its file says that it wants rewards of steps on
  their tokens;
* `compute_policy_loss(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config,
  rollout_is_weights)` → the loss `actor_rollout_ref.actor.policy_loss.loss_mode=NAME`. `config` is
  verl's `actor_rollout_ref.actor`; verl refuses keys of ours in it, so a loss has no options.
"""

import ast
import contextlib
import functools
import importlib
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent.parent / "algos"
KINDS = {  # function in a file of algos/ → verl's decorator that takes it
    "compute_advantage": "register_adv_est",
    "compute_policy_loss": "register_policy_loss",
}
VERLS = {"token_level_rewards", "response_mask", "index", "config", "reward_baselines"}


class Declared(NamedTuple):
    """What a file of algos/ declares at its top level.

    Options are those of compute_advantage, with their defaults; None for one that is not a literal.
    """

    functions: dict[str, tuple[str, ...]]  # name → names of its arguments
    constants: dict[str, Any]  # assigned literals
    options: dict[str, Any]


def declares(name: str) -> Declared:
    """What algos/NAME.py declares, read without importing it; nothing if there is no such file.

    Raises:
        SyntaxError: Python can't read the file.
    """
    file = FOLDER / f"{name}.py"
    return _declared(file.read_text() if file.is_file() else "")


@functools.cache
def _declared(text: str) -> Declared:
    functions, constants, options = {}, {}, {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            functions[node.name] = tuple(argument.arg for argument in arguments)
            if node.name == "compute_advantage":
                options = _defaults(node.args)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            with contextlib.suppress(ValueError):  # not a literal
                value = ast.literal_eval(node.value)
                constants |= {x.id: value for x in targets if isinstance(x, ast.Name)}
    return Declared(functions, constants, options)


def _defaults(arguments: ast.arguments) -> dict[str, Any]:
    """Keyword-only arguments that verl does not pass itself, with their defaults."""
    found = {}
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if argument.arg not in VERLS:
            found[argument.arg] = None
            with contextlib.suppress(ValueError):  # not a literal
                found[argument.arg] = ast.literal_eval(default) if default else None
    return found


def names(function: str) -> list[str]:
    """Names of the files of algos/ that define `function`, without importing any (trainers import verl).

    A file that Python can't read is among them: who imports or reads it then gets the error.
    """
    files = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    return [name for name in files if _defines(name, function)]


def _defines(name: str, function: str) -> bool:
    try:
        return function in declares(name).functions
    except SyntaxError:
        return True


def options(name: str) -> dict[str, Any]:
    """Options of the estimator in algos/NAME.py with their defaults, without importing it."""
    return dict(declares(name).options)


def uses_steps(estimator: str) -> bool:
    """Whether an estimator is a file of algos/ that says `STEP_REWARDS = True`."""
    return declares(estimator).constants.get("STEP_REWARDS") is True


def with_options(name: str, function):
    """An estimator that takes its options from `algorithm.NAME`, of the config that verl passes."""

    @functools.wraps(function)
    def estimator(*args, config=None, **kwargs):
        return function(*args, config=config, **kwargs, **((config or {}).get(name) or {}))

    return estimator


def register() -> None:
    """Register everything once verl imports its own algorithms."""
    import wrapt  # not needed by those who only read what files declare

    @wrapt.when_imported("verl.trainer.ppo.core_algos")
    def _register(core_algos) -> None:
        for function, decorator in KINDS.items():
            for name in names(function):
                ours = getattr(importlib.import_module(f"algos.{name}"), function)
                if function == "compute_advantage":
                    ours = with_options(name, ours)
                getattr(core_algos, decorator)(name)(ours)
