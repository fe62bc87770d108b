"""What preflight says about the options of a reward, and how a composite's parts are given."""

import pytest
from helpers import resolved
from omegaconf import OmegaConf
from preflight_helpers import caught

from preflight.checks.files import check_reward_function
from preflight.checks.reward_options import check_reward_options

KWARGS = "reward.custom_reward_function.reward_kwargs."


def test_good_ones_pass(composer):
    cases = [("reward=composite",), ("reward=math",), ("reward=exact",), ("reward=format",),
             ("reward=length",), ("reward=sql",), ("reward=none",), ("algo=sft",),
             ("reward=composite", KWARGS + "parts={math: 1, length: 0.1}",
              KWARGS + "options={length: {max_length: 400, cache: 100}}")]  # fmt: skip
    for overrides in cases:
        assert check_reward_options(composer(*overrides)) is None, overrides


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parts={sqll: 1.0}"], ["'sqll'", "Did you mean sql?", "There is:", "length"]),
        (["parts={sql: much}"], ["weight of sql", "'much'"]),
        (["parts={}"], ["needs parts"]),
        (["parts={model: 1.0}"], ["model can't be in parts"]),
        (["options={lenght: {cache: 9}}"], ["'lenght'", "Did you mean length?"]),
        (["options={length: {cash: 9}}"], ["'cash'", "Did you mean cache?"]),
        (["options={length: {max_length: 0}}"], ["max_length must be", "not 0"]),
        (["main=exact"], ["'exact'", "sql"]),
    ],
)
def test_a_mistake_in_a_composite(composer, overrides, words):
    config = composer("reward=composite", *(KWARGS + o for o in overrides))
    said = caught("check_reward_options", config)
    assert said.startswith("reward=composite: ")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("reward", "override", "words"),
    [
        ("math", "decimals=-1", "decimals must be"),
        ("math", "accept=[box]", "Did you mean boxed?"),
        ("exact", "where=tag", "Did you mean tags?"),
        ("format", "schema=/no/such.json", "one of the two"),
        ("format", "pattern='('", "missing ), unterminated subpattern"),
        ("length", "cache=5000", "cache must be"),
        ("length", "unit=tokens", "needs a tokenizer"),
    ],
)
def test_a_mistake_in_a_reward(composer, reward, override, words):
    said = caught("check_reward_options", composer(f"reward={reward}", KWARGS + override))
    assert said.startswith(f"reward={reward}: ") and words in said


def parts_of(config) -> dict:
    return resolved(config)["reward"]["custom_reward_function"]["reward_kwargs"]


def test_parts_replace_the_default_ones(composer):
    default = parts_of(composer("reward=composite"))
    assert default == {"parts": {"sql": 0.9, "length": 0.1}, "options": {}, "main": None}
    given = parts_of(composer("reward=composite", KWARGS + "parts={math: 1.0}"))
    assert given["parts"] == {"math": 1.0}  # no sql lingers
    one = parts_of(composer("reward=composite", f"+{KWARGS}options.length.max_length=400"))
    assert one["options"] == {"length": {"max_length": 400}} and one["parts"] == default["parts"]


def test_the_default_ones_are_in_what_verl_gets(composer):
    """As launch.py resolves a config for its run."""
    for overrides in ([], [KWARGS + "parts={math: 1.0}"]):
        config = composer("reward=composite", *overrides)
        before = parts_of(config)
        OmegaConf.resolve(config)
        assert parts_of(config) == before


OWN = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, bonus=0.0):
    return bonus

async def with_default(data_source, solution_str, ground_truth, extra_info=None, weight=1.0):
    return weight

def takes_all(data_source, solution_str, ground_truth, extra_info=None, **options):
    return 0.0
"""


@pytest.fixture
def own(composer, tmp_path):
    """`own("lab.reward.bonus=1", name="...")` → the config of a reward in a file of one's own."""
    file = tmp_path / "mine.py"
    file.write_text(OWN)

    def make(*overrides, name="compute_score"):
        key = "reward.custom_reward_function"
        return composer("reward=none", f"{key}.path={file}", f"{key}.name={name}", *overrides)

    return make


def test_options_of_a_file_of_ones_own_need_no_plus(own):
    for config in (own("lab.reward.bonus=0.1"), own(KWARGS + "bonus=0.1")):
        assert check_reward_options(config) is None
        assert parts_of(config) == {"bonus": 0.1}
    assert check_reward_options(own("lab.reward.weight=2", name="with_default")) is None
    assert check_reward_options(own("lab.reward.whatever=2", name="takes_all")) is None


def test_a_misspelt_option_of_a_file_of_ones_own(own):
    for name, option, near in (
        ("compute_score", "bonsu", "bonus"),
        ("with_default", "wieght", "weight"),
    ):
        said = caught("check_reward_options", own(f"lab.reward.{option}=1", name=name))
        assert f"mine.py: unknown option {option!r}. Did you mean {near}? There is: {near}" in said
    said = caught("check_reward_options", own("lab.reward.solution_str=x"))
    assert "unknown option 'solution_str'" in said  # verl gives that itself


def test_a_presets_option_does_not_reach_another_function(own):
    config = own("experiment=demo_grpo", "lab.reward.bonus=0.1")
    assert check_reward_options(config) is None and parts_of(config) == {"bonus": 0.1}


BOUND = {  # how a file may come to its function: its text
    "an annotated name": "from typing import Callable\ncompute_score: Callable = lambda **row: 0.0\n",
    "below an if": "import os\nif os.sep:\n    def compute_score(**row):\n        return 0.0\n",
    "in a try": "try:\n    from nobody_has_it import compute_score\nexcept ImportError:\n    compute_score = print\n",
    "all of a module": "from json import *\nfrom posixpath import *\n",  # the function is join
    "by its dictionary": "globals()['compute_score'] = lambda **row: 0.0\n",
    "a byte order mark": "\ufeffdef compute_score(**row):\n    return 0.0\n",
    "another encoding": "# -*- coding: latin-1 -*-\ndef compute_score(**row):\n    return 0.0  # Stra\xdfe\n",
}


@pytest.mark.parametrize("way", BOUND)
def test_a_function_that_python_finds_is_found(own, tmp_path, way):
    text = BOUND[way]
    config = own(name="join" if "posixpath" in text else "compute_score")
    (tmp_path / "mine.py").write_bytes(text.encode("latin-1" if "latin" in text else "utf-8"))
    assert check_reward_function(config) is None
    assert check_reward_options(config) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from nobody_has_it import *\n", "can't be imported: ModuleNotFoundError"),
        ("from json import *\n", "has no function 'compute_score'"),
        ("def outer():\n    def compute_score(**row): ...\n", "has no function 'compute_score'"),
        ("compute_scor = print\n", "Did you mean compute_scor?"),
    ],
)
def test_a_file_without_the_function(own, tmp_path, text, said):
    config = own()
    (tmp_path / "mine.py").write_text(text)
    assert said in caught("check_reward_function", config)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("a, b", "it takes no data_source and no solution_str"),
        ("data_source, solution_str, ground_truth", "it takes no extra_info"),
        ("data_source, solution_str, ground_truth, extra_info, tokenizer", "needs tokenizer"),
        ("data_source, solution_str, ground_truth, extra_info, /", "calls compute_score by name"),
    ],
)
def test_a_function_that_could_not_be_called(own, tmp_path, head, said):
    config = own()
    (tmp_path / "mine.py").write_text(f"def compute_score({head}):\n    return 0.0\n")
    assert said in caught("check_reward_options", config)
