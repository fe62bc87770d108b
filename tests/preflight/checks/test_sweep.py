"""`lab.sweep.*`: values that can't be, a halving that never stops a job, words of a search in another sweep."""

from types import SimpleNamespace

import pytest
from preflight_helpers import caught, message_of

from preflight.checks import sweep
from preflight.resolvers import SEARCH

HALVING = "lab.sweep.halving=3"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("lab.sweep.budget_steps=-1", "0 or more"),
        ("lab.sweep.halving=1", "2 or more"),
        ("lab.sweep.halving_min=1", "fewer validations say too little"),
        ("lab.sweep.trials=0", "1 or more"),
        ("lab.sweep.seeds=[0,0]", "different whole numbers"),
    ],
)
def test_single_values(configure, word, text):
    assert text in caught("check_sweep", configure(word))


def test_a_halving_that_never_stops_a_job(configure):
    none = configure(HALVING, "trainer.test_freq=-1")
    assert "this run makes none" in caught("check_halving", none)
    few = configure(HALVING, "trainer.test_freq=10", "trainer.total_training_steps=30")
    assert "would never stop a job" in caught("check_halving", few)
    many = configure(HALVING, "trainer.test_freq=5", "trainer.total_training_steps=30")
    assert message_of("check_halving", many) is None


def test_words_of_a_search_in_another_sweep(configure, monkeypatch):
    hydra = SimpleNamespace(sweeper=SimpleNamespace(_target_="another"))
    config = configure("lab.sweep.trials=3")
    monkeypatch.setattr(sweep, "given", lambda key: key == "lab.sweep.trials")
    monkeypatch.setattr(sweep, "is_of_a_sweep", lambda: True)
    monkeypatch.setattr(sweep, "HydraConfig", SimpleNamespace(get=lambda: hydra))
    assert "lab.sweep.trials is of a search" in caught("check_search", config)
    hydra.sweeper._target_ = SEARCH
    assert message_of("check_search", config) is None
