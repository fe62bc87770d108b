"""The temporary folder of a run: fit for sockets wherever TMPDIR points, or refused."""

import os
import socket
import subprocess
import sys
import tempfile

import pytest

from preflight import temporary


@pytest.fixture
def base(monkeypatch):
    """`base(folder)`: what TMPDIR names."""
    return lambda folder: monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_the_longest_fit_folder_holds_ray_s_longest_socket():
    name = "/session_2026-11-27_12-00-00_123456_4194304/sockets/plasma_store"
    folder = "/" + "x" * (temporary.MOST - 1)
    assert temporary.is_fit(folder) and not temporary.is_fit(folder + "x")
    with socket.socket(socket.AF_UNIX) as one:
        with pytest.raises(FileNotFoundError):  # and no "path too long"
            one.bind(folder + name)
        with pytest.raises(OSError, match="too long"):
            one.bind(folder + "x" + name)


def test_a_plain_folder_is_used_as_it_is(base):
    base("/tmp")
    (made,) = temporary.made()
    os.rmdir(made)
    assert os.path.dirname(made) == "/tmp" and temporary.fault() is None


def test_a_stage_s_folder_in_its_run_s_needs_no_link(base):
    assert temporary.is_fit("/tmp/verl-lab-12345678/verl-lab-12345678")


@pytest.mark.parametrize("name", ["x" * 40, "größe", "with space", "a=b"])
def test_another_one_has_a_link(base, tmp_path, name):
    (tmp_path / name).mkdir()
    base(tmp_path / name)
    link, folder = temporary.made()
    assert temporary.is_fit(link) and os.path.samefile(link, folder)
    kept = temporary.compiled(link)
    os.remove(link)
    assert not kept.startswith(str(tmp_path / name)) or name[0] == "x"


def test_what_torch_has_compiled_is_kept_for_the_next_run(base, tmp_path):
    """Also what it keeps in TMPDIR, which is the run's folder, though TORCHINDUCTOR_CACHE_DIR names another."""
    base(tmp_path)
    (tmp_path / "run").mkdir()
    kept = temporary.compiled(str(tmp_path / "run"))
    code = "from torch._inductor.codecache import _HEADER_DIR as a, cache_dir as b; print(a, b())"
    env = os.environ | {"TMPDIR": str(tmp_path / "run"), "TORCHINDUCTOR_CACHE_DIR": kept}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    headers, cache = done.stdout.split()
    assert (
        cache
        == kept
        == os.path.dirname(os.path.realpath(headers))
        == str(tmp_path / os.path.basename(kept))
    )


def test_where_no_link_can_lie_the_run_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(temporary, "SHORT", str(tmp_path / "missing"))
    base(tmp_path)
    assert "Set TMPDIR to a shorter folder" in temporary.fault()
    base(tmp_path / "none")
    assert "can't be written" in temporary.fault()
