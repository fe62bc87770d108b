"""Answers that a run dumped get their prompts back, and become pairs."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.__main__ import main
from data_prep.tiny_model import make_tokenizer


def row(i: int, split: str) -> dict:
    system = [{"role": "system", "content": "Be brief."}] if i % 2 else []
    return {
        "data_source": "test",
        "prompt": [*system, {"role": "user", "content": f"  How many of {split} {i}?\n"}],
        "reward_model": {"style": "rule", "ground_truth": f"reference {i}"},
        "extra_info": {"index": i, "split": split, "db": f"{i}.sqlite"},
    }


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(["user assistant: How many of train val 0123456789? Be brief."], 300)


@pytest.fixture
def run_folder(tmp_path, tokenizer):
    """A run's folder with dumps as verl writes them: prompts decoded without special tokens."""
    folder = tmp_path / "run"
    tokenizer.save_pretrained(tmp_path / "model")
    files = {}
    for split, number, dumps in (("train", 12, "rollouts"), ("val", 4, "validation")):
        rows = [row(i, split) for i in range(number)]
        files[split] = str(tmp_path / f"{split}.parquet")
        pq.write_table(pa.Table.from_pylist(rows), files[split])
        (folder / dumps).mkdir(parents=True)
        for step in (1, 2):  # an answer to each prompt at each step, the later the better
            lines = []
            for i, one in enumerate(rows):
                ids = tokenizer.apply_chat_template(
                    one["prompt"], add_generation_prompt=True, return_dict=False
                )
                text = tokenizer.batch_decode([ids], skip_special_tokens=True)[0]
                lines.append({"input": text, "output": f"{step} {i}", "gts": f"reference {i}",
                              "score": step / 2, "step": step, "masked": 0.0})  # fmt: skip
            content = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / dumps / f"{step}.jsonl").write_text(content)
    config = {
        "data": {"train_files": files["train"], "val_files": [files["val"]], "prompt_key": "prompt",
                 "apply_chat_template_kwargs": {}},
        "actor_rollout_ref": {"model": {"path": str(tmp_path / "model"), "tokenizer_path": None}},
    }  # fmt: skip
    (folder / "resolved.yaml").write_text(yaml.safe_dump(config))
    return folder


def prepare(source, out, *options: str) -> dict[str, list[dict]]:
    command = ["preference", str(source), "--out", str(out), "--force", *options]
    assert main(command) == 0
    return {s: pq.read_table(out / f"pref_{s}.parquet").to_pylist() for s in ("train", "val")}


def test_a_run_becomes_pairs(run_folder, tmp_path):
    found = prepare(run_folder, tmp_path / "out", "--val-share", "1e-9")
    for split, number in {"train": 12, "val": 4}.items():
        pairs = {json.dumps(r["prompt"]): (r["chosen"], r["rejected"]) for r in found[split]}
        assert pairs.keys() == {json.dumps(row(i, split)["prompt"]) for i in range(number)}
        for i in range(number):
            better, worse = pairs[json.dumps(row(i, split)["prompt"])]
            assert (better[0]["content"], worse[0]["content"]) == (f"2 {i}", f"1 {i}")


def test_a_folder_of_dumps_of_a_run(run_folder, tmp_path):
    found = prepare(run_folder / "rollouts", tmp_path / "out", "--val-share", "0.3")
    assert len(found["train"]) + len(found["val"]) == 12


def test_answers_to_other_prompts_are_bad_rows(run_folder, tmp_path, capsys):
    file = run_folder / "rollouts/1.jsonl"
    lines = file.read_text().splitlines()
    foreign = json.loads(lines[0]) | {"input": "user\nWho?\nassistant\n"}
    wrong_reference = json.loads(lines[1]) | {"gts": "reference 7"}
    file.write_text("\n".join([*lines, json.dumps(foreign), json.dumps(wrong_reference)]))
    assert main(["preference", str(run_folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "2 of 34 rows are bad" in error and "no row of the run's data renders to it" in error


def test_dumps_without_their_run(run_folder, tmp_path, capsys):
    (run_folder / "resolved.yaml").unlink()
    assert main(["preference", str(run_folder / "rollouts"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "need their run's resolved.yaml" in error and error.count("\n") == 1


@pytest.mark.real
def test_what_a_real_run_dumped(run, warm, tmp_path):
    result = run("algo=grpo", "reward=sql", f"lab.model.path={warm.folder}")
    out = tmp_path / "out"  # labels, not pairs: whatever the answers are worth, each has one
    options = ["--reward", "sql", "--outcome", "--out", str(out)]
    assert main(["process", str(result.folder), *options]) == 0
    counts = json.loads((out / "card.json").read_text())["counts"]
    dumped = sum(len(f.read_text().splitlines()) for f in result.folder.glob("*/*.jsonl"))
    assert counts["read"] == dumped and counts["rejected"] == 0
    assert counts["train"] and counts["val"]
