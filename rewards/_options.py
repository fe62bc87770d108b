"""Options of a reward: what is said about a wrong one. Each check raises ValueError."""

import difflib
import inspect
import math

OF_VERL = (
    "reward_router_address",
    "reward_model_tokenizer",
)  # to every reward, if a model is served


def options_of(function) -> dict[str, object]:
    """The options of a reward function with their defaults: its keyword arguments after verl's four."""
    parameters = inspect.signature(function).parameters.values()
    keywords = [p for p in parameters if p.default is not p.empty and p.name != "extra_info"]
    return {p.name: p.default for p in keywords}


def nearest(given, known) -> str:
    close = difflib.get_close_matches(str(given), known, 1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"There is: {', '.join(known)}"


def refuse_unknown(names, function) -> None:
    """A name that is none of the function's options."""
    known = list(options_of(function))
    for name in names:
        if name not in known and name not in OF_VERL:
            raise ValueError(f"unknown option {name!r}: {nearest(name, known)}")


def check_choice(name: str, value, known) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}: {nearest(value, known)}")


def check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")


def check_number(name: str, value, least=-math.inf, most=math.inf, whole=False) -> None:
    """A finite number, from `least` to `most`; `whole`: an integer. A bool is no number."""
    kinds = (int,) if whole else (int, float)
    if type(value) in kinds and math.isfinite(value) and least <= value <= most:
        return
    wanted = "a whole number" if whole else "a finite number"
    wanted += f", at least {least}" if least > -math.inf else ""
    wanted += f", at most {most}" if most < math.inf else ""
    raise ValueError(f"{name} must be {wanted}, not {value!r}")


def plain(node):
    """Mappings and lists as Python's own: those of a config are OmegaConf's."""
    if hasattr(node, "items"):
        return {str(key): plain(value) for key, value in node.items()}
    return (
        node if isinstance(node, str) or not hasattr(node, "__iter__") else list(map(plain, node))
    )
