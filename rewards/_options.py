"""Options of a reward: declared once, as the fields of a class, and what is said about a wrong one.

    class Options(_options.Options):
        unit: Literal["characters", "words"] = "characters"
        max_length: int = Field(2000, ge=1)

    def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
        o = Options.of(options)

The names are those of conf/reward/NAME.yaml. verl passes options by keyword, the same for each answer:
they are checked once, and then known by a look-up. A reward without such a class has the keyword
arguments of its function as options (`options_of`, `check`).
"""

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from preflight.mistakes import unknown

OF_ROW = ("data_source", "solution_str", "ground_truth", "extra_info")
OF_VERL = (
    "reward_router_address",
    "reward_model_tokenizer",
)  # to every reward, if a model is served
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text",
         list: "a list", dict: "a mapping", NoneType: "null"}  # fmt: skip
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


class Options(BaseModel):
    """Base class. No value is converted: "2" is not a number, and 1 is not true; NaN is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs):
        # `of` gives the same object for the same options, so that it can be a part of other keys.
        cls.__hash__ = object.__hash__  # type: ignore[method-assign]
        cls.__eq__ = object.__eq__  # type: ignore[method-assign]

    @classmethod
    def of(cls, options: Mapping):
        """The checked options; the same object for the same ones. ValueError for a bad one."""
        try:
            return _checked(cls, **options)
        except TypeError:  # lists and mappings can't be looked up
            mine = {name: value for name, value in options.items() if name not in OF_VERL}
            return _checked(cls, **{name: _key(value) for name, value in mine.items()})


class _Json(str):
    """A list or a mapping, as a key."""


def _key(value):
    try:
        hash(value)
    except TypeError:
        return _Json(json.dumps(plain(value), sort_keys=True, default=str))
    return value


@lru_cache(maxsize=256, typed=True)  # typed: 1 is not true
def _checked(kind: type[Options], /, **options) -> Options:
    mine = {name: value for name, value in options.items() if name not in OF_VERL}
    if len(mine) < len(options):
        return _checked(kind, **mine)
    given = {n: json.loads(v) if type(v) is _Json else plain(v) for n, v in mine.items()}
    try:
        return kind(**given)
    except ValidationError as error:
        raise ValueError(_message(kind, error)) from None


def _message(kind: type[Options], error: ValidationError) -> str:
    """What is wrong with the first bad option, names before values."""
    found = error.errors(include_url=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    if first["type"] == "value_error":  # of our own validators: they say it all
        return str(first["ctx"]["error"])
    name, value = str(first["loc"][0]), first["input"]
    if first["type"] == "extra_forbidden":
        return unknown("option", name, defaults(kind))
    field = next(f for n, f in kind.model_fields.items() if name in (n, f.alias))
    if first["type"] == "literal_error":
        return unknown(name, str(value), _choices(field.annotation))
    return f"{name} must be {_wanted(field)}, not {_shown(value, field)}"


def _choices(annotation) -> list:
    """The values of a Literal, wherever it stands in an annotation."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _kinds(annotation) -> list[type]:
    """The types that an annotation names: of `list[int] | None`, list and NoneType."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [origin or annotation]


def _wanted(field: FieldInfo) -> str:
    """What a field takes, in words."""
    limits = [f", {word} {getattr(limit, bound):g}" for bound, word in BOUNDS.items()
              for limit in field.metadata if hasattr(limit, bound)]  # fmt: skip
    full = " that is not empty" if any(hasattr(m, "min_length") for m in field.metadata) else ""
    more = dict.fromkeys((int, float), "".join(limits)) | {list: full}
    words = [WORDS[kind] + more.get(kind, "") for kind in _kinds(field.annotation)]
    return (", or " if limits else " or ").join(words)


def _shown(value, field: FieldInfo) -> str:
    """A value; of a text in the wrong place only what it is, as it may be a secret."""
    numbers = {bool, int, float}.intersection(_kinds(field.annotation))
    if value is not None and (numbers or isinstance(value, bool | int | float) or not value):
        return repr(value)
    return WORDS.get(type(value), type(value).__name__)


def defaults(kind: type[Options]) -> dict[str, object]:
    """The options of a class, by the names that users write, with their defaults."""
    fields = kind.model_fields.items()
    return {f.alias or name: f.get_default(call_default_factory=True) for name, f in fields}


def options_of(module) -> dict[str, object]:
    """The options of a reward with their defaults: of its class Options, else of its function."""
    if kind := getattr(module, "Options", None):
        return defaults(kind)
    parameters = inspect.signature(module.compute_score).parameters.values()
    known = (*OF_ROW, *OF_VERL)
    given = [
        p
        for p in parameters
        if p.name not in known and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return {p.name: None if p.default is p.empty else p.default for p in given}


def takes_any(module) -> bool:
    """Whether the reward's function takes options of any name."""
    parameters = inspect.signature(module.compute_score).parameters.values()
    return not hasattr(module, "Options") and any(p.kind is p.VAR_KEYWORD for p in parameters)


def is_served(module) -> bool:
    """Whether the reward asks a model that verl serves, and so works inside of a run only."""
    return OF_VERL[0] in inspect.signature(module.compute_score).parameters


def check(module, options: Mapping) -> None:
    """ValueError for what the reward would refuse: an unknown name, a value out of range."""
    if kind := getattr(module, "Options", None):
        kind.of(options)
    else:
        known = options_of(module)
        for name in options:
            if name not in known and name not in OF_VERL and not takes_any(module):
                raise ValueError(unknown("option", name, known))


def plain(node):
    """Mappings and lists as Python's own: those of a config are OmegaConf's."""
    if hasattr(node, "items"):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, str) or not hasattr(node, "__iter__"):
        return node
    return list(map(plain, node))
