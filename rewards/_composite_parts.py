"""The parts of `reward=composite`: other rewards by name, with weights and options."""

import importlib
import json
from functools import lru_cache
from pathlib import Path

from rewards._options import OF_VERL, check_choice, check_number, options_of, plain, refuse_unknown


def checked(parts, options=None, main=None) -> tuple[dict[str, float], dict[str, dict]]:
    """Weights and options of each part, or ValueError: an unknown name, a weight that is no number."""
    return _checked(json.dumps([plain(parts), plain(options), main], default=str))


@lru_cache(16)
def _checked(given: str) -> tuple[dict[str, float], dict[str, dict]]:
    weights, options, main = json.loads(given)
    if not isinstance(weights, dict) or not any(weights.values()):
        raise ValueError(
            f"reward=composite needs parts, such as {{sql: 0.9, length: 0.1}}, not {weights}"
        )
    if not isinstance(options or {}, dict):
        raise ValueError(
            f"options must be by part, such as {{length: {{cache: 9}}}}, not {options}"
        )
    for name, weight in weights.items():
        check_choice("name in parts", name, names())
        check_number(f"in parts the weight of {name}", weight)
    options = options or {}
    for name in options:
        check_choice("name in options", name, list(weights))
    if main is not None:
        check_choice("main", main, list(weights))
    for name in weights:
        options[name] = options.get(name) or {}
        function = module(name).compute_score
        if set(OF_VERL) & set(options_of(function)):
            raise ValueError(f"{name} can't be in parts: it needs a model that verl serves")
        try:
            refuse_unknown(options[name], function)
            if bars := getattr(module(name), "bars", None):
                bars(**options[name])  # refuses a value that is out of range
        except ValueError as error:
            raise ValueError(f"options of {name}: {error}") from None
    return weights, options


def names() -> list[str]:
    """All rewards but this one."""
    found = (file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    return sorted(name for name in found if name != "composite")


def module(name: str):
    return importlib.import_module(f"rewards.{name}")
