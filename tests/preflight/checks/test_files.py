"""What preflight says about files: data, models, rewards, and room on the disk."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from preflight_helpers import RL_ROW, caught, each, noted

from preflight.checks import Note
from preflight.checks.files import check_random_weights

# check → cases: overrides, and what the line must say
MISTAKES = {
    "check_data_files": [(["lab.dataset.dir=/nowhere"], "`make data D=sql_demo` makes it")],
    "check_model": [
        (["lab.model.path=/nowhere/model"], "no model at /nowhere/model"),
        (["lab.model.path=/tmp"], "neither a Hugging Face model"),
    ],
    "check_reward_function": [
        (["reward.custom_reward_function.path=/nowhere.py"], "no reward file /nowhere.py"),
        (["reward.custom_reward_function.path=pkg://rewards.sqll"], "Did you mean sql?"),
    ],
}


test_each_mistake_is_found = each(MISTAKES)


def test_a_reward_file_is_looked_at_before_it_is_run(said, tmp_path):
    reward = tmp_path / "mine.py"
    reward.write_text("raise ValueError('ran')\ndef compute_scores(**_): return 1\n")
    key = "reward.custom_reward_function"
    assert "Did you mean compute_scores?" in said(f"{key}.path={reward}")[0]
    assert "ran" in said(f"{key}.path={reward}", f"{key}.name=compute_scores")[0]
    reward.write_text("def compute_score(**_)\n    return 1\n")
    assert "mine.py, line 1: expected ':'" in said(f"{key}.path={reward}")[0]


def test_a_full_disk(configure, monkeypatch):
    from preflight.checks import files

    monkeypatch.setattr(files, "MIN_FREE_GIB", 10**9)
    assert "GiB free, 1000000000 GiB needed" in caught("check_disk", configure())


def test_a_model_of_random_weights(configure, tmp_path):
    """Notes alone: a first try of the pipeline is allowed."""
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    (tmp_path / "card.json").write_text('{"made": {"name": "tiny_model"}}')
    config = configure(f"lab.model.path={tmp_path}")
    assert "Train it first" in noted("check_random_weights", config)


def test_rows_that_cannot_be_graded(configure, said, tmp_path):
    """A reference answer that fails and a database that is missing, with the row's number; once for each file."""
    import sqlite3

    db = tmp_path / "d.sqlite"
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE t (a INTEGER)")

    def write(*references: tuple[str, Path]) -> None:
        rows = [
            RL_ROW | {"reward_model": {"style": "rule", "ground_truth": sql},
                      "extra_info": {"index": i, "split": "train", "db": str(path)}}
            for i, (sql, path) in enumerate(references)
        ]  # fmt: skip
        for name in ("train", "val"):
            pq.write_table(pa.Table.from_pylist(rows * 16), tmp_path / f"{name}.parquet")

    here = [f"lab.dataset.dir={tmp_path}", "reward=sql"]
    write(
        ("SELECT a FROM t", db),
        ("SELECT b FROM t", db),
        ("SELECT a FROM t", tmp_path / "none.sqlite"),
    )
    line = caught("check_rows", configure(*here))
    assert "gold_error" in line or "db_missing" in line
    assert said(*here, "lab.check_data=false") == []
    write(("SELECT a FROM t", db))
    assert said(*here) == []
    assert (tmp_path / "train.checked.json").exists()


def test_random_weights_are_said_and_no_others(configure, tiny_model, tmp_path):
    note = check_random_weights(configure("dataset=gsm8k"))
    assert isinstance(note, Note) and "algo=sft dataset=gsm8k hydra.run.dir=outputs/sft" in note
    assert check_random_weights(configure("algo=sft")) is None
    trained = tmp_path / "trained"  # a checkpoint has no card
    shutil.copytree(tiny_model, trained, ignore=shutil.ignore_patterns("card.json"))
    assert check_random_weights(configure(f"lab.model.path={trained}")) is None
