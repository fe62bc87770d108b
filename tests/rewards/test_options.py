"""Options of rewards: each reward's defaults are those of its YAML file, and what is said about a wrong one."""

import math
from typing import Literal

import pytest
from helpers import ROOT
from omegaconf import OmegaConf
from pydantic import Field, ValidationError, model_validator

from rewards import _options
from rewards._names import load, names
from rewards._options import check, defaults, options_of

# What a run must have, and a function that is called by hand can do without.
OF_A_RUN = {
    "composite": {"parts"},
    "format": {"pattern"},
    "judge": {"folder", "max_calls"},
    "model": {"max_tokens"},
    "prm": {"max_tokens", "outcome"},
}
FILES = sorted(file.stem for file in (ROOT / "conf/reward").glob("*.yaml"))


def test_every_reward_has_a_file():
    assert names() == sorted({*FILES} - {"none"})


@pytest.mark.parametrize("name", names())
def test_the_defaults_are_those_of_the_file(composer, name):
    written = OmegaConf.to_container(composer(f"reward={name}").lab.reward, resolve=True)
    known = options_of(load(name))
    assert written and written.keys() <= known.keys()
    others = OF_A_RUN.get(name, set())
    assert {k: v for k, v in written.items() if k not in others} == {
        k: known[k] for k in written if k not in others
    }
    for key in others:  # else it needs no exception
        assert known[key] is None and written[key] is not None


@pytest.mark.parametrize("name", names())
def test_a_misspelt_option_is_refused(name):
    module = load(name)
    for option in options_of(module):
        with pytest.raises(ValueError, match=f"unknown option '{option}x'. Did you mean {option}"):
            check(module, {f"{option}x": 1})


class Options(_options.Options):
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = True
    count: int = Field(2, ge=1, le=9)
    share: float = Field(0.5, gt=0, lt=1)
    limit: float | None = Field(None, ge=0)
    text: str | None = None
    places: list[Literal["here", "there"]] = Field(["here"], min_length=1)
    names: dict = Field({})

    @model_validator(mode="after")
    def _fit_together(self):
        if self.count == 9 and self.mode == "slow":
            raise ValueError("count=9 is for mode=fast")
        return self


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "fsat"}, "unknown mode 'fsat'. Did you mean fast? There is: fast, slow"),
        ({"mode": None}, "unknown mode 'None'. There is: fast, slow"),
        ({"flag": 1}, "flag must be true or false, not 1"),
        ({"flag": "true"}, "flag must be true or false, not 'true'"),
        ({"count": 0}, "count must be a whole number, at least 1, at most 9, not 0"),
        ({"count": 2.0}, "count must be a whole number, at least 1, at most 9, not 2.0"),
        ({"count": True}, "count must be a whole number, at least 1, at most 9, not True"),
        ({"share": 1}, "share must be a number, above 0, below 1, not 1"),
        ({"share": "0.5"}, "share must be a number, above 0, below 1, not '0.5'"),
        ({"share": math.nan}, "share must be a number, above 0, below 1, not nan"),
        ({"share": None}, "share must be a number, above 0, below 1, not null"),
        ({"limit": -1}, "limit must be a number, at least 0, or null, not -1"),
        ({"text": ["sk-secret"]}, "text must be text or null, not a list"),
        ({"text": 5}, "text must be text or null, not 5"),
        ({"places": []}, "places must be a list that is not empty, not []"),
        ({"places": "here"}, "places must be a list that is not empty, not text"),
        ({"places": ["her"]}, "unknown places 'her'. Did you mean here? There is: here, there"),
        ({"names": 3}, "names must be a mapping, not 3"),
        ({"count": 9, "mode": "slow"}, "count=9 is for mode=fast"),
        ({"cuont": 0, "flag": 1}, "unknown option 'cuont'. Did you mean count? There is: count, flag,"
                                  " limit, mode, names, places, share, text"),
    ],
)  # fmt: skip
def test_messages(given, message):
    with pytest.raises(ValueError) as caught:
        Options.of(given)
    assert str(caught.value) == message and not isinstance(caught.value, ValidationError)


def test_the_same_options_are_one_object():
    first = Options.of({"places": ["there"], "names": {"b": 1, "a": 2}, "count": 3})
    assert Options.of({"places": ["there"], "names": {"a": 2, "b": 1}, "count": 3}) is first
    assert Options.of({"count": 1}) is Options.of({"count": 1}) is not Options.of({"count": 2})
    assert Options.of({"flag": True}) is Options.of({"flag": True})
    with pytest.raises(ValueError, match="flag must be"):
        Options.of({"flag": 1})  # which Python takes for equal to True
    assert hash(first) == object.__hash__(first)  # a look-up by it reads no option


def test_what_a_config_holds():
    config = OmegaConf.create({"places": ["here", "there"], "names": {"a": [1]}, "share": 0.25})
    options = Options.of(dict(config))
    assert type(options.places) is list and type(options.names["a"]) is list
    assert Options.of({"reward_model_tokenizer": object(), "count": 2}) == Options.of({"count": 2})
    assert defaults(Options)["places"] == ["here"]


def test_a_reward_without_the_class():
    class Module:
        @staticmethod
        def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, weight=1.0):
            return weight

    assert options_of(Module) == {"weight": 1.0}
    check(Module, {"weight": 5, "reward_router_address": "x"})
    with pytest.raises(ValueError, match="unknown option 'wieght'"):
        check(Module, {"wieght": 5})
