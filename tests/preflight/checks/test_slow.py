"""The slow checks: lengths of real rows, the reward on a few of them, and verl's own verdict."""

import contextlib
import io
import re
import shutil

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from preflight_helpers import all_checks, caught

from algos._pairs import Chains, Pairs
from preflight.checks import Note, slow_reward
from preflight.checks.slow_lengths import Renderer, kind_of
from preflight.sample import sample
from preflight.verdict import verdict
from rewards._limits.worker import short

REWARDS = """
import time

def bars(**options):
    return {"range": (0.0, 1.0), "reference": 1.0, "empty": 0.0}

def honest(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth)

def stingy(data_source, solution_str, ground_truth, extra_info=None):
    return 0.5 * (solution_str == ground_truth)

def generous(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0

def buggy(data_source, solution_str, ground_truth, extra_info=None):
    return extra_info["answers"]

def hangs(data_source, solution_str, ground_truth, extra_info=None):
    time.sleep(60)

def flat(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0

def forgets(data_source, solution_str, ground_truth, extra_info=None):
    float(solution_str == ground_truth)

def boxed(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == f"[{ground_truth}]")

def unsure(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float("nan"), "outcome": "no idea"}
"""


@pytest.fixture
def real(configure, sql_demo):
    """`real("algo=sft", ...)` → a config on data that was made for it."""
    return lambda *overrides: configure(f"lab.dataset.dir={sql_demo}", *overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "data.train_files: "),
        (["data.max_prompt_length=55"], "% of 200 rows of data.train_files have more than data.max_prompt_length=55"),
        (["algo=sft"], "data.max_length=128"),
        (["algo=sft", "data.max_length=90", "data.truncation=right"], "): cut"),
        (["algo=dpo"], "data.max_length=128"),
        (["algo=prm", "data.max_length=95"], "): left out"),
        (["lab.model.path=org/elsewhere"], "is not on this machine: no row was measured"),
    ],
)  # fmt: skip
def test_lengths_that_are_no_mistake(real, overrides, words):
    line = all_checks()["check_lengths_of_rows"](real(*overrides))
    assert isinstance(line, Note) and words in line


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.max_prompt_length=10"], "100% of 200 rows of data.train_files have more than"),
        (["algo=sft", "data.max_length=90"], "): an error. Set data.max_length="),
        (["algo=sft", "data.max_length=60", "data.truncation=left"], "): cut. Set data.max_length="),
        (["algo=rm", "data.max_length=30"], "): left out. Set"),
    ],
)  # fmt: skip
def test_lengths_that_are(real, overrides, words):
    assert words in caught("check_lengths_of_rows", real(*overrides))


@pytest.mark.parametrize(("algo", "items"), [("dpo", Pairs), ("prm", Chains)])
def test_lengths_are_those_that_are_trained_on(real, algo, items):
    config = real(f"algo={algo}", "data.max_length=9999")
    renderer = Renderer(config)
    dataset = items(config.data.train_files, renderer.tokenizer, config.data)
    length = kind_of(config, renderer).length
    rows = pq.read_table(config.data.train_files).to_pylist()
    trained = [max(len(sequence["input_ids"]) for sequence in item) for item in dataset]
    assert [length(row) for row in rows] == trained


def test_a_template_that_rewrites_the_prompt(real):
    """Our trainers tokenise prompt and answer apart, and refuse it at the first row."""
    text = "{% if add_generation_prompt %}a{% else %}b{% endif %}"
    template = f"++data.apply_chat_template_kwargs={{chat_template: '{text}'}}"
    check = all_checks()["check_lengths_of_rows"]
    line = check(real("algo=dpo", template))
    assert not isinstance(line, Note) and "renders a prompt in another way" in line
    assert "lab.model.chat_template_kwargs" in line
    assert isinstance(check(real("algo=sft", template)), Note)


def test_a_context_that_is_too_short(real, tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    file = model / "config.json"
    told = '"max_position_embeddings": '
    file.write_text(file.read_text().replace(f"{told}512", f"{told}40"))
    line = caught("check_lengths_of_rows", real("algo=sft", f"lab.model.path={model}"))
    assert "the model's context is 40: set data.max_length=40" in line


def test_a_template_that_changes_earlier_turns(real, tiny_model, tmp_path):
    check = all_checks()["check_turns"]
    assert check(real("algo=sft")) is None and check(real()) is None
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    file = model / "chat_template.jinja"
    file.write_text("{{ messages | length }}" + file.read_text())
    sft = ["algo=sft", f"lab.model.path={model}"]
    line = caught("check_turns", real(*sft))
    assert "row" in line and "data.ignore_input_ids_mismatch=true" in line
    assert check(real(*sft, "data.ignore_input_ids_mismatch=true")) is None


@pytest.fixture
def tried(real, tmp_path):
    """`tried("honest")` → a config with that function of REWARDS."""
    (tmp_path / "mine.py").write_text(REWARDS)
    key = "reward.custom_reward_function"

    return lambda name, *more: real(f"{key}.path={tmp_path}/mine.py", f"{key}.name={name}", *more)


def test_a_good_reward(tried):
    line = all_checks()["check_reward"](tried("honest"))
    assert (
        isinstance(line, Note) and line == "16 reference answers score 1 to 1, empty ones up to 0."
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stingy", "the reference answer scores 0.5, and the reward promises at least 1"),
        ("generous", "an empty answer scores 1, and the reward promises at most 0"),
        (
            "buggy",
            "the reward raised on the reference answer: KeyError: 'answers'"
            ' (MINE, line 17, in buggy: return extra_info["answers"])',
        ),
        ("forgets", "TypeError: it returned None, and not a number or {'score': NUMBER, ...}"),
        (
            "hangs",
            "the reward was stopped on the reference answer (timeout, see lab.reward_limits)",
        ),
        ("unsure", "the reference answer can't be graded (no idea)"),
    ],
)
def test_a_bad_one(tried, name, words):
    config = tried(name, "lab.reward_limits.timeout_s=0.3", "lab.reward_limits.processes=16")
    line = caught("check_reward", config)
    words = words.replace("MINE", short(config.reward.custom_reward_function.path))
    assert words in line and ".parquet, row " in line


@pytest.mark.parametrize(("name", "both"), [("flat", "1 and 1"), ("boxed", "0 and 0")])
def test_reference_and_empty_answers_alike(tried, tmp_path, name, both):
    """Of a reward that promises nothing, this is a fault."""
    file = tmp_path / "mine.py"
    config = tried(name)
    file.write_text(REWARDS[REWARDS.index("def honest") :])
    line = caught("check_reward", config)
    assert line.startswith("in 16 of 16 rows the reference answer scores no more than an empty one")
    assert f"({both} in row " in line and "reference_answer(ground_truth, extra_info)" in line
    named = re.findall(r"(\w+)\.parquet, rows ((?:\d+, ){7}\d+)", line)
    assert [file for file, _ in named] == ["train", "val"]


def test_only_the_rows_that_are_alike_are_named(tried, tmp_path):
    config = tried("honest")
    drawn = sample(config.data.val_files, slow_reward.ROWS)
    unread = drawn[3][2]["reward_model"]["ground_truth"]
    (tmp_path / "mine.py").write_text(
        "def honest(data_source, solution_str, ground_truth, extra_info=None):\n"
        f"    return float(solution_str == ground_truth != {unread!r})\n"
    )
    line = caught("check_reward", config)
    named = re.search(r"val\.parquet, rows ([\d, ]+)\.", line)[1]
    alike = [n for _, n, row in drawn if row["reward_model"]["ground_truth"] == unread]
    assert named == ", ".join(map(str, alike)) and len(alike) < len(drawn)


def test_an_answer_that_is_not_the_ground_truth_as_it_stands(tried, tmp_path):
    config = tried("boxed")
    says = "\ndef reference_answer(ground_truth, extra_info):\n    return f'[{ground_truth}]'\n"
    (tmp_path / "mine.py").write_text(REWARDS + says)
    assert "16 reference answers score 1 to 1" in all_checks()["check_reward"](config)


def test_a_reward_that_cannot_be_imported(tried, tmp_path):
    config = tried("honest")
    (tmp_path / "mine.py").write_text("import nosuch_lib\n" + REWARDS)
    line = caught("check_reward", config)
    assert "can't be imported: ModuleNotFoundError: No module named 'nosuch_lib' (" in line
    assert line.endswith("mine.py, line 1, in <module>: import nosuch_lib)")


def test_shipped_rewards(real):
    check = all_checks()["check_reward"]
    assert "reference answers score 1 to 1" in check(real("reward=sql"))
    assert "no reference answers" in check(real("reward=format"))
    judge = ["reward=judge", "reward.custom_reward_function.reward_kwargs.model=m",
             "reward.custom_reward_function.reward_kwargs.base_url=http://127.0.0.1:1/v1",
             "reward.custom_reward_function.reward_kwargs.api_key_env=null"]  # fmt: skip
    for overrides in (["reward=none"], judge, ["reward=model", "lab.reward_model.path=org/x"]):
        line = check(real(*overrides))
        assert isinstance(line, Note) and "asks a server" in line
    assert check(real("algo=sft")) is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], None),
        (["algo=ppo"], None),
        (["algo=sft"], None),
        (["distillation.enabled=true"], "ValueError: model_path must be specified"),
        (["+actor_rollout_ref.rollout.foo=3"], "TypeError: RolloutConfig.__init__() got an unexpected keyword"),
        (["algo=sft", "optim.lr_scheduler_type=x"], "AssertionError"),
    ],
)  # fmt: skip
def test_verls_verdict(configure, monkeypatch, overrides, words):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    config = configure(*overrides)
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    with contextlib.redirect_stdout(io.StringIO()):
        line = verdict(config)
    assert line is None if words is None else words in line


def test_the_verdict_of_another_process(configure, monkeypatch, tmp_path):
    """How it is told, without the seconds that verl takes."""
    from preflight.checks import slow_verl

    fake = tmp_path / "preflight"
    fake.mkdir()
    monkeypatch.setattr(slow_verl, "ROOT", tmp_path)
    for code, words in (
        ("", None),
        ("print('noise'); print('verdict: ValueError: no')", "verl refuses this config: ValueError: no"),
        ("raise SystemExit('out of luck')", "verl's own check failed: out of luck"),
    ):  # fmt: skip
        (fake / "verdict.py").write_text(code)
        config = configure()
        if words is None:
            assert slow_verl.check_verls_verdict(config) is None
        else:
            assert caught("check_verls_verdict", config) == words


def test_a_template_of_ones_own(real, tmp_path):
    """Its answers must end as generation ends; a mark that is no token is told."""
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}END\n{% endfor %}"
    begins = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    file = tmp_path / "own.jinja"
    key = f"lab.model.chat_template={file}"
    check = all_checks()["check_template"]
    file.write_text(turns.replace("END", "<|end|>") + begins)
    assert "answers would never end" in caught("check_template", real(key))
    file.write_text(turns.replace("END", "<|im_end|>") + begins)
    assert check(real(key)) is None and check(real("algo=sft", key)) is None
    file.write_text(turns.replace("END", "<|im_end|>").replace("<|im_start|>", "<|turn|>") + begins)
    said = check(real(key))
    assert isinstance(said, Note) and "no token for <|turn|>" in said
    file.write_text("{% for m in messages %}{{ m.role }}{% endfor %}")
    assert "an answer is not in what it renders" in caught("check_template", real(key))
    assert check(real()) is None
