"""tools.evaluate beside verl's own validation: the same model, rows and greedy decoding give the same scores."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.real


def test_scores_are_those_of_a_validation(warm, run, tmp_path):
    validated = run(
        f"lab.model.path={warm.folder}", "trainer.val_only=true", "lab.dataset.val_max_samples=-1"
    )
    rows = [json.loads(line) for line in (validated.folder / "validation/0.jsonl").open()]
    assert len(rows) > 100
    output = tmp_path / "answers.jsonl"
    for engine in ("vllm", "transformers"):
        command = [sys.executable, "-m", "tools.evaluate", str(warm.folder), "--output", str(output), "--force",
                   "--engine", engine, "hw=cpu", "reward=sql", "--input", validated_rows(validated)]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in output.open()]
        mine = sorted(
            (a["ground_truth"], a["answer"], a["score"], a["acc"], a["outcome"]) for a in answers
        )
        verls = sorted((r["gts"], r["output"], r["score"], r["acc"], r["outcome"]) for r in rows)
        assert mine == verls


def validated_rows(validated) -> str:
    """The file that the run validated on."""
    config = json.loads((validated.folder / "training_config.json").read_text())
    files = config["data"]["val_files"]
    return files if isinstance(files, str) else files[0]
