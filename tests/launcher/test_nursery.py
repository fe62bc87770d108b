"""One set of imports for the runs of a sweep: they are made once, and each run still leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import ROOT, heed_ctrl_c
from mess import MESS, TMP, folder_of, gone, mess

from launcher import supervisor
from launcher.processes import lives

pytestmark = pytest.mark.skipif(not supervisor.can_fork(), reason="forks on Linux alone")

# Runs one after another in one launcher: each argument is a run's folder, and behind a "=" its seed and what else is
# set. What they have in common is imported: a module that writes down each time that it is.
SWEEP = """
import os, sys, time
from pathlib import Path
from launcher import ends, nursery, supervisor
supervisor.IMPORTS = ["slow"]
ends.heed()
code, *runs = sys.argv[1:]
for words in runs:
    folder, *words = words.split("=")
    env = os.environ | {"LAB_SEED": words[0], "LAB_WORD": words[1]}
    command = [sys.executable, "-c", code]
    try:
        status = supervisor.run(lambda tmp, python: list(command), Path(folder), env, time.time, 60, fork=True,
                                others_follow=True)
    except KeyboardInterrupt as stop:
        status = ends.status(stop)
    print("code", status, "left", len(supervisor.descendants()), "kept", len(nursery.kept), flush=True)
"""
LOOK = "import os, sys; print('slow' in sys.modules, os.environ['LAB_SEED'], os.environ['LAB_WORD'], flush=True)\n"


@pytest.fixture
def sweep(tmp_path):
    """`sweep(code, RUN=SEED=WORD, ...)` → the launcher's process; tmp_path/imports.txt has a line for each import."""
    (tmp_path / "slow.py").write_text(
        f"open({str(tmp_path / 'imports.txt')!r}, 'a').write('imported\\n')\n"
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path)])

    def begin(code: str, *runs: str) -> subprocess.Popen:
        for run in runs:
            (tmp_path / run.partition("=")[0]).mkdir()
        folders = [str(tmp_path / run) for run in runs]
        return subprocess.Popen(
            [sys.executable, "-c", SWEEP, code, *folders], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "TMPDIR": "/tmp"}, preexec_fn=heed_ctrl_c,
        )  # fmt: skip

    return begin


def imports(tmp_path: Path) -> int:
    return len((tmp_path / "imports.txt").read_text().splitlines())


def test_what_the_runs_have_in_common_is_imported_once(sweep, tmp_path):
    process = sweep(LOOK + TMP + MESS, "a=1=x", "b=2=x", "c=3=x")
    said = process.communicate(timeout=60)[0].splitlines()
    assert said == ["code 0 left 1 kept 1"] * 3  # the one that imports, and nothing of a run
    assert imports(tmp_path) == 1
    logs = [(tmp_path / name / "log.txt").read_text() for name in "abc"]
    assert [log.splitlines()[0] for log in logs] == [f"True {seed} x" for seed in (1, 2, 3)]
    folders = {folder_of(tmp_path / name) for name in "abc"}
    assert len(folders) == 3 and not any(folder.exists() for folder in folders)


def test_a_run_with_another_environment_imports_anew(sweep, tmp_path):
    process = sweep(LOOK, "a=1=x", "b=1=y", "c=2=y")
    assert process.communicate(timeout=60)[0].splitlines() == ["code 0 left 1 kept 1"] * 3
    assert imports(tmp_path) == 2
    assert (tmp_path / "b/log.txt").read_text().splitlines()[0] == "True 1 y"


def test_its_exit_status_passes_and_the_next_one_begins(sweep, tmp_path):
    fails = LOOK + "sys.exit(3 if os.environ['LAB_SEED'] == '1' else 0)"
    said = sweep(fails, "a=1=x", "b=2=x").communicate(timeout=60)[0].splitlines()
    assert said == ["code 3 left 1 kept 1", "code 0 left 1 kept 1"]
    killed = LOOK + "os.kill(os.getpid(), 9)"
    said = sweep(killed, "c=1=x").communicate(timeout=60)[0].splitlines()
    assert said == ["code 137 left 1 kept 1"]
    assert "was ended by SIGKILL" in (tmp_path / "c/log.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_that_goes_on(sweep, tmp_path, number):
    process = sweep(TMP + MESS + "time.sleep(300)", "a=1=x")
    orphan, block = mess(tmp_path / "a")
    process.send_signal(number)
    assert process.communicate(timeout=30)[0].strip() == f"code {128 + number} left 1 kept 1"
    assert gone(orphan) and not block.exists() and not folder_of(tmp_path / "a").exists()


@pytest.mark.parametrize("which", ["launcher", "the one that imports"])
def test_everything_ends_with_it(sweep, tmp_path, which):
    process = sweep(TMP + MESS + "time.sleep(300)", "a=1=x")
    orphan, block = mess(tmp_path / "a")
    launcher = psutil.Process(process.pid)
    below = launcher.children(recursive=True)
    serving = [p for p in below if lives(p) and "serve" in p.cmdline()]
    places = [Path(p.environ()["TMPDIR"]) for p in serving] + [folder_of(tmp_path / "a")]
    (server,) = (p for p in serving if p.ppid() == process.pid)
    (launcher if which == "launcher" else server).kill()
    process.communicate(timeout=60)
    assert gone(orphan, *(p.pid for p in below))
    deadline = time.time() + 30
    # a block that is younger than the last look at what is in use is nobody's, as where a guard is killed
    while any(map(Path.exists, places)) or (which == "launcher" and block.exists()):
        assert time.time() < deadline, (places, block)
        time.sleep(0.1)
    block.unlink(missing_ok=True)
