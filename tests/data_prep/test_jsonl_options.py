"""jsonl: its options, the split, no leak from validation into training, and memory that is flat."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from helpers import ROOT

from data_prep.__main__ import main


def write(file, rows: list[dict]):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def prepare(source, *options: str) -> dict[str, list[dict]]:
    """The rows of the four files; the command must succeed."""
    out = source.parent / "out"
    assert main(["jsonl", str(source), "--out", str(out), "--force", *options]) == 0
    return {f.stem: pq.read_table(f).to_pylist() for f in sorted(out.glob("*.parquet"))}


def asked(rows: list[dict]) -> set[str]:
    return {row["prompt"][-1]["content"] for row in rows}


def test_rows_with_the_same_prompt_land_on_the_same_side(tmp_path):
    """Also with the same id or another answer; and a row stays where it is when others come."""
    rows = [{"id": 7, "q": f"question {i % 50}", "a": str(i)} for i in range(150)]
    source = write(tmp_path / "twice.jsonl", rows)
    options = ["--prompt", "q", "--answer", "a", "--val-share", "0.3", "--extra", "id,a"]
    files = prepare(source, *options)
    assert len(files["train"]) + len(files["val"]) == 150
    val, train = asked(files["val"]), asked(files["train"])
    assert len(val) + len(train) == 50 and not val & train and 5 <= len(val) <= 25
    assert {row["extra_info"]["id"] for row in files["val"]} == {"7"}
    indices = [row["extra_info"]["index"] for row in files["train"] + files["val"]]
    assert sorted(indices) == list(range(150))
    write(source, [{"id": 7, "q": f"new {i}", "a": "x"} for i in range(50)] + rows)
    assert val <= asked(prepare(source, *options)["val"])


def test_the_same_source_gives_identical_files(tmp_path):
    source = write(tmp_path / "s.jsonl", [{"q": f"q {i}", "a": "x"} for i in range(60)])
    cards = []
    for _ in range(2):
        prepare(source, "--prompt", "q", "--answer", "a", "--val-share", "0.2")
        cards.append((tmp_path / "out/card.json").read_text())
    assert cards[0] == cards[1]


def test_a_file_of_validation_rows_is_kept_out_of_training(tmp_path):
    source = write(tmp_path / "train.jsonl", [{"q": f"q {i}", "a": "x"} for i in range(20)])
    val = write(tmp_path / "val.jsonl", [{"q": f"q {i}", "a": "y"} for i in range(15, 25)])
    files = prepare(source, "--prompt", "q", "--answer", "a", "--val", str(val))
    assert asked(files["train"]) == {f"q {i}" for i in range(15)}
    assert asked(files["val"]) == {f"q {i}" for i in range(15, 25)}
    counts = json.loads((tmp_path / "out/card.json").read_text())["counts"]
    assert counts == {"read": 30, "train": 15, "val": 10, "rejected": 0, "in_val": 5}


def test_texts_with_fields_are_filled_in_once(tmp_path):
    rows = [{"a b": "{{c}}", "c": f"{{}} {i}", "r": "because"} for i in range(30)]
    options = ["--prompt", "{x} {{a b}}: {{c}}", "--answer", "c", "--response", "{{r}}: {{c}}"]
    options += ["--system", "Be {brief}", "--val-share", "0.3", "--ability", "test"]
    files = prepare(write(tmp_path / "my data.jsonl", rows), *options)
    row = next(r for r in files["train"] + files["val"] if r["extra_info"]["index"] == 4)
    assert row["prompt"] == [
        {"role": "system", "content": "Be {brief}"},
        {"role": "user", "content": "{x} {{c}}: {} 4"},
    ]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "{} 4"}
    assert (row["data_source"], row["ability"]) == ("my data", "test")
    lessons = [r["messages"][-1]["content"] for r in files["sft_train"] + files["sft_val"]]
    assert sorted(lessons) == sorted(f"because: {{}} {i}" for i in range(30))


def test_prompts_may_be_messages_and_answers_may_be_left_out(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"m": [*talk, {"role": "user", "content": str(i)}]} for i in range(30)]
    source = write(tmp_path / "m.jsonl", rows)
    files = prepare(source, "--prompt", "m", "--val-share", "0.3", "--data-source", "mine")
    assert set(files) == {"train", "val"}
    both = files["train"] + files["val"]
    assert sorted(len(row["prompt"]) for row in both) == [3] * 30
    assert {(row["data_source"], row["reward_model"]["ground_truth"]) for row in both} == {
        ("mine", "")
    }


def test_databases_are_found_beside_the_source(tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db/one.sqlite").touch()
    good = [{"q": f"q {i}", "f": "db/one.sqlite"} for i in range(30)]
    hostile = [None, "", "db", "db/none.sqlite", "x" * 5000, "\0", 7, ["db"]]
    source = write(tmp_path / "s.jsonl", good + [{"q": "x", "f": name} for name in hostile])
    options = ["--prompt", "q", "--db", "f", "--val-share", "0.3", "--on-bad", "skip"]
    files = prepare(source, *options)
    assert {row["extra_info"]["db"] for row in files["train"] + files["val"]} == {
        str(tmp_path / "db/one.sqlite")
    }
    lines = (tmp_path / "out/rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["data"]["f"] for line in lines] == hostile


def test_a_huge_line(tmp_path):
    long = "語" * 3_000_000
    rows = [{"q": f"q {i}", "a": "x"} for i in range(30)] + [{"q": long, "a": long}]
    source = write(tmp_path / "huge.jsonl", rows)
    files = prepare(source, "--prompt", "q", "--answer", "a", "--val-share", "0.3")
    assert long in asked(files["train"] + files["val"])
    lengths = json.loads((tmp_path / "out/card.json").read_text())["lengths"]
    assert max(lengths[f"{s}.parquet"]["prompt"]["max"] for s in ("train", "val")) == 3_000_000


MISTAKES = [  # options, what the one line must say
    ([], "arguments are required: --prompt"),
    (["--prompt", "q", "--val-share", "1"], "1 is not between 0 and 1"),
    (["--prompt", "q", "--val-share", "many"], "--val-share"),
    (["--prompt", "q", "--extra", "index,q"], "--extra index"),
    (["--prompt", "q", "--val", "nowhere.jsonl"], "no file nowhere.jsonl"),
    (["--prompt", "q", "--on-bad", "maybe"], "--on-bad"),
    (["--prompt", "q", "--anwser", "a"], "--anwser"),
    (["--prompt", "q", "--tokenizer", "nowhere"], "no model folder with a tokenizer at 'nowhere'"),
    (["--prompt", "q", "--val-share", "1e-9"], "no rows for val (3 read, 3 train, 0 val"),
    (["--prompt", "q", "--val", "s.jsonl"], "no rows for train (6 read, 0 train, 3 val"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES)
def test_a_mistake_is_told_in_a_line(tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s.jsonl", [{"q": f"q {i}"} for i in range(3)])
    assert main(["jsonl", "s.jsonl", "--out", "out", *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def peak_mib(source) -> float:
    """The peak of a process of its own; getrusage would count the process it was forked from."""
    code = (
        "import re, sys; from data_prep.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = ["jsonl", source, "--prompt", "q", "--answer", "a", "--out", f"{source}.out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1]) / 1024


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """50 MB more in the source; 8,000 rows fill the row groups that are kept until written."""
    peaks = []
    for number in (8_000, 32_000):
        source = tmp_path / f"{number}.jsonl"
        with source.open("w") as f:
            for i in range(number):
                f.write(json.dumps({"q": f"{i} " + "x" * 2000, "a": "1"}) + "\n")
        peaks.append(peak_mib(source))
    assert peaks[1] - peaks[0] < 40, peaks
    assert peaks[1] < 400, peaks
