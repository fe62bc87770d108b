"""Real runs that end badly: Ctrl-C, a crash, a step that hangs, rows that nobody can grade."""

import json
import signal
import time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import leftovers

from launcher.metrics import read_metrics

pytestmark = pytest.mark.real


def test_ctrl_c_stops_everything(start, tmp_path):
    before = leftovers()
    process = start("trainer.total_training_steps=1000")
    deadline = time.time() + 300
    while not read_metrics(tmp_path / "run/metrics.jsonl"):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "stopped" in output and "Traceback" not in output
    assert leftovers() <= before, leftovers() - before
    assert json.loads((tmp_path / "run/run.json").read_text())["attempts"][0]["exit"] == 130


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGHUP, 129)])
def test_a_run_ends_with_its_launcher(start, tmp_path, number, status):
    """Killed, or with its terminal: torchrun and its workers see nothing of either."""
    before = leftovers()
    process = start("algo=sft", "trainer.total_training_steps=100000")
    deadline = time.time() + 120
    while not read_metrics(tmp_path / "run/metrics.jsonl"):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.2)
    assert leftovers() > before
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    deadline = time.time() + 20
    while leftovers() > before and time.time() < deadline:
        time.sleep(0.2)
    assert leftovers() <= before, leftovers() - before
    attempt = json.loads((tmp_path / "run/run.json").read_text())["attempts"][0]
    assert attempt["exit"] == (None if number == signal.SIGKILL else 129)


def test_a_run_ends_when_a_daemon_of_its_ray_is_killed(start, tmp_path):
    """Ray's own processes notice only after a minute that its GCS is gone, and none says so."""
    before, folder = leftovers(), tmp_path / "run"
    process = start("trainer.total_training_steps=1000", "trainer.val_before_train=false",
                    "trainer.test_freq=-1", "trainer.save_freq=1")  # fmt: skip
    deadline = time.time() + 300
    while not read_metrics(folder / "metrics.jsonl"):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    (gcs,) = (child for child in children if child.name() == "gcs_server")
    gcs.kill()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert f"gcs_server of Ray (process {gcs.pid}) has ended" in output
    assert f"resume={folder}" in output and "it has no checkpoint" not in output
    assert leftovers() <= before, leftovers() - before


def test_a_crash_gives_the_last_error_and_the_whole_log(run, tmp_path):
    reward = tmp_path / "broken.py"
    # It breaks in the workers of Ray alone: where it breaks in the checks, the run is refused.
    reward.write_text(
        "import sys\n"
        "if 'ray' in sys.modules and sys.modules['ray'].is_initialized():\n"
        "    raise ImportError('a package that my reward needs')\n"
        "def compute_score(ground_truth, solution_str, **_):\n"
        "    return float(solution_str == ground_truth)\n"
    )
    result = run("reward=none", f"reward.custom_reward_function.path={reward}", status=1)
    assert "a package that my reward needs" in result.done.stdout
    assert "log.txt" in "\n".join(result.done.stdout.splitlines()[-3:])
    assert len(result.done.stdout.splitlines()) < 40


def test_a_step_that_hangs_is_noticed(run, tmp_path):
    reward = tmp_path / "hangs.py"
    reward.write_text(
        "import asyncio\nasync def compute_score(**_):\n    await asyncio.sleep(10_000)\n"
    )
    result = run("reward=none", f"reward.custom_reward_function.path={reward}", "trainer.val_before_train=false",
                 "lab.stall_timeout_s=45", status=124)  # fmt: skip
    assert "no progress for 0:45 (lab.stall_timeout_s)" in result.done.stdout
    assert "MainThread" in (result.folder / "stacks.txt").read_text()


def test_samples_that_cannot_be_graded_are_masked(run, sql_demo, tmp_path):
    """A quarter of the reference answers don't run: counted, and out of the update."""
    broken = tmp_path / "data"
    broken.mkdir()
    for name in ("train", "val"):
        rows = pq.read_table(sql_demo / f"{name}.parquet").to_pylist()
        for row in rows[::4] if name == "train" else []:
            row["reward_model"]["ground_truth"] = "SELECT no_such_column FROM nowhere"
        pq.write_table(pa.Table.from_pylist(rows), broken / f"{name}.parquet")
    refused = run(f"lab.dataset.dir={broken}", folder=tmp_path / "refused", status=2)
    assert "50 rows can't be graded" in refused.done.stdout
    result = run(f"lab.dataset.dir={broken}", "lab.check_data=false", "trainer.total_training_steps=3",
                 "trainer.val_before_train=false", "trainer.test_freq=-1")  # fmt: skip
    masked = [result.at(step, "reward/masked") for step in (1, 2, 3)]
    assert 0 < sum(masked) / 3 < 0.6, masked
    for step in (1, 2, 3):
        share = result.metrics[step].get("reward/outcome/gold_error", 0)
        assert share == pytest.approx(result.at(step, "reward/masked"))
        assert abs(result.at(step, "actor/grad_norm")) < 1e4
