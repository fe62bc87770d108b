"""What is in a folder survives a kill, a full disk and a second run; only --force replaces it."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, heed_ctrl_c

from data_prep.__main__ import main

ASK = ["--prompt", "q", "--answer", "a", "--val-share", "0.3"]


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps({"q": f"q {i}", "a": "x"}) + "\n" for i in range(40)))
    return file


@pytest.fixture
def made(source, tmp_path, capsys):
    """(a finished folder, the command that made it)"""
    out = tmp_path / "out"
    command = ["jsonl", str(source), *ASK, "--out", str(out)]
    assert main(command) == 0
    capsys.readouterr()
    return out, command


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(command: list[str], capsys) -> str:
    """The error of a command that must be a user's mistake, of one line."""
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("data_prep: ") and error.count("\n") == 1
    return error


def test_the_same_again_is_already_there(made, capsys):
    out, command = made
    stats = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert main(command) == 0
    assert f"{out}: already there" in capsys.readouterr().out
    assert stats == {p: p.stat().st_mtime_ns for p in out.iterdir()}


@pytest.mark.parametrize("change", ["option", "input", "edited", "gone", "card", "name"])
def test_anything_else_needs_force(made, source, capsys, change):
    out, command = made
    if change == "option":
        command = [*command, "--ability", "maths"]
        said = "ability was 'general', is 'maths'"
    elif change == "input":
        source.write_text(source.read_text() + '{"q": "new", "a": "x"}\n')
        said = "the input files have changed"
    elif change == "edited":
        (out / "train.parquet").write_bytes(b"my own")
        said = "train.parquet was changed by hand"
    elif change == "gone":
        (out / "val.parquet").unlink()
        said = "val.parquet is gone"
    elif change == "card":
        (out / "card.json").write_text('{"files": {"train.parquet": 1}, "made": {"options": []}}')
        said = "it holds files without a card.json"
    else:
        command = ["sql_demo", "--out", str(out)]
        said = "it holds jsonl, not sql_demo"
    before = content(out)
    error = refused(command, capsys)
    assert said in error and "--force" in error
    assert content(out) == before


def test_what_an_earlier_version_made_is_not_replaced_unasked(made, capsys):
    """Its card has one hash of all code of data_prep, which nothing can be compared with."""
    out, command = made
    card = json.loads((out / "card.json").read_text())
    card["made"]["code"] = "0123456789abcdef"
    (out / "card.json").write_text(json.dumps(card))
    before = content(out)
    error = refused(command, capsys)
    assert (
        "earlier version of data_prep and does not list the code" in error
        and "can still be used" in error
    )
    assert "--force" in error and "input files" not in error and content(out) == before
    assert "ability was 'general', is 'maths'" in refused([*command, "--ability", "maths"], capsys)
    assert main([*command, "--force"]) == 0 and main(command) == 0
    assert "already there" in capsys.readouterr().out


def test_force_replaces_what_was_made_and_leaves_the_rest(made, source, capsys):
    out, command = made
    (out / "notes.txt").write_text("mine")
    source.write_text(source.read_text() + "broken\n")
    assert main([*command, "--force", "--on-bad", "skip"]) == 0
    with_rejected = content(out)
    assert "rejected.jsonl" in with_rejected and with_rejected["notes.txt"] == b"mine"
    source.write_text(source.read_text().replace("broken\n", ""))
    assert main([*command, "--force"]) == 0
    assert set(content(out)) == set(with_rejected) - {"rejected.jsonl"}
    card = json.loads((out / "card.json").read_text())
    assert set(card["files"]) == set(content(out)) - {"card.json", "notes.txt"}
    assert main(command) == 0 and "already there" in capsys.readouterr().out


def test_a_foreign_folder_is_left_alone(tmp_path, source, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.parquet").write_bytes(b"somebody's")
    command = ["jsonl", str(source), *ASK, "--out", str(out)]
    assert "files without a card.json" in refused(command, capsys)
    assert content(out) == {"train.parquet": b"somebody's"}


def test_a_failed_run_leaves_what_was_there(made, source):
    out, command = made
    before = content(out)
    source.write_text(source.read_text() + "broken\n")
    assert main([*command, "--force"]) == 2
    assert content(out) == before


def start(out, *options: str) -> subprocess.Popen:
    """A long run of sql_demo into `out`, once it has begun to write files there."""
    rows = ["--train-rows", "30000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep", "sql_demo", *rows, "--out", out, *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    end = time.monotonic() + 60
    while not list(out.glob(".partial/files/*.parquet")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_what_was_there(made, how, capsys):
    out, command = made
    before = content(out)
    process = start(out, "--force")
    process.send_signal(how)
    error = process.communicate(timeout=60)[1]
    after = content(out)
    assert {f: data for f, data in after.items() if not f.startswith(".partial/")} == before
    if how == signal.SIGINT:
        assert process.returncode == 130 and after == before
        assert error == "data_prep: interrupted; nothing was written\n"
    else:
        assert process.returncode == -how
    assert main(command) == 0 and "already there" in capsys.readouterr().out
    assert main([*command, "--force"]) == 0
    assert set(content(out)) == set(before)  # what the killed run left is gone


def test_a_run_that_was_killed_in_a_new_folder_can_be_run_again(tmp_path, source):
    out = tmp_path / "out"
    process = start(out)
    process.kill()
    process.communicate(timeout=60)
    assert [p.name for p in out.iterdir()] == [".partial"]
    assert main(["jsonl", str(source), *ASK, "--out", str(out)]) == 0
    assert not (out / ".partial").exists()


def test_two_runs_do_not_write_one_folder(tmp_path, source, capsys):
    out = tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    command = ["jsonl", str(source), *ASK, "--out", str(out)]
    with (out / ".partial/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert f"another run is writing {out}" in refused(command, capsys)
        assert (out / ".partial").is_dir()
    assert main(command) == 0


@pytest.mark.parametrize(
    ("name", "limit"), [("sql_demo", 4_000), ("jsonl", 100)], ids=["in sqlite3", "in pyarrow"]
)
def test_a_full_disk_is_told_and_loses_nothing(made, name, limit):
    """A limit on the size of files is the full disk that a test can have."""
    out, command = made
    before = content(out)
    command = command if name == "jsonl" else [name, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", *command, "--force"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"data_prep: can't write {out}: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert content(out) == before


def test_a_full_disk_under_a_model_is_told(made, capsys):
    """In safetensors; in this process, which has torch for other tests anyway."""
    out, _ = made
    before, limits = content(out), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        error = refused(["tiny_model", "--out", str(out), "--force"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"can't write {out}: " in error and "File too large" in error
    assert content(out) == before


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc/nowhere"])
def test_a_place_that_is_no_folder_is_told(source, capsys, place):
    out = {"a file": source, "below a file": source / "out"}.get(place, place)
    before = source.read_bytes()
    assert str(out) in refused(["jsonl", str(source), *ASK, "--out", str(out)], capsys)
    assert source.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_an_unwritable_folder_is_told(made, capsys):
    out, command = made
    before = content(out)
    out.chmod(0o500)
    assert "Permission denied" in refused([*command, "--force"], capsys)
    out.chmod(0o700)
    assert content(out) == before
