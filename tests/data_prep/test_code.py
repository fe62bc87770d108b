"""A card lists the code that makes a dataset: what the source imports, and nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from data_prep._code import code_of, files_of

ROOMS = ("data_prep", "preflight", "rewards")


@pytest.fixture
def project(tmp_path):
    """A copy of the project, to be changed."""
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, tmp_path / "project" / room, ignore=ignored)
    return tmp_path / "project"


def touch(project: Path, file: str) -> None:
    with (project / file).open("a") as out:
        out.write("\n# changed\n")


@pytest.mark.parametrize(
    ("name", "related"),
    [
        ("spider", ["spider.py", "_text2sql.py", "_dataset.py", "_sqlite.py"]),
        ("econ", ["econ.py", "_econ/rows.py", "_econ/simulate.py", "_scoring.py"]),
        ("finance", ["_finance_demo.py", "_finance_demo.yaml"]),
        ("tiny_model", ["tiny_model.py", "sql_demo.py", "_sql_demo/templates.py"]),
        ("preference", ["_answers.py", "_ranking.py", "../rewards/_rows.py"]),
    ],
)
def test_a_change_of_related_code_is_seen(project, name, related):
    for file in related:
        before = code_of(name, project)
        touch(project / "data_prep", file)
        after = code_of(name, project)
        changed = [path for path in before if before[path] != after[path]]
        assert changed == [f"data_prep/{file}".replace("data_prep/../", "")]


@pytest.mark.parametrize(
    ("name", "unrelated"),
    [
        (
            "spider",
            ["_econ/rows.py", "_ranking.py", "_finance_demo.yaml", "bird.py", "__main__.py"],
        ),
        ("econ", ["_fields.py", "_sql_demo/draw.py", "_trading_demo.py", "../rewards/econ.py"]),
        ("sql_demo", ["tiny_model.py", "_text2sql.py", "../preflight/names.py"]),
    ],
)
def test_a_change_of_other_code_is_not(project, name, unrelated):
    before = code_of(name, project)
    for file in unrelated:
        touch(project / "data_prep", file)
    assert code_of(name, project) == before


def test_imports_are_found_wherever_they_stand(tmp_path):
    def write(file: str, text: str) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)

    write(
        "data_prep/a.py",
        "import json\nfrom data_prep import _b\ndef f():\n    import other.c as c\n",
    )
    write("data_prep/_b.py", "from data_prep._d.e import x\nfrom . import nothing\n")
    write("data_prep/_b.yaml", "words")
    write("data_prep/_d/e.py", "import data_prep.a\n")  # a circle
    write("other/c.py", "import numpy")
    write("data_prep/_z.py", "")
    found = [file.relative_to(tmp_path).as_posix() for file in files_of("a", tmp_path)]
    assert found == [
        "data_prep/_b.py",
        "data_prep/_b.yaml",
        "data_prep/_d/e.py",
        "data_prep/a.py",
        "other/c.py",
    ]


@pytest.mark.parametrize("name", ["econ", "hf", "preference", "tiny_model"])
def test_it_is_what_python_loads(name):
    code = (
        f"import sys, data_prep.{name}; modules = list(sys.modules.values())\n"
        "print(*(m.__file__ for m in modules if getattr(m, '__file__', None)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = {Path(file) for file in done.stdout.split()}
    mine = {
        f
        for f in loaded
        if f.is_relative_to(ROOT) and ".venv" not in f.parts and f.name != "__init__.py"
    }
    assert ROOT / f"data_prep/{name}.py" in mine and mine <= set(files_of(name)), done.stderr


def test_a_folder_is_the_same_until_its_own_code_changes(project, tmp_path):
    (tmp_path / "s.csv").write_text("q,a\n" + "".join(f"q {i},{i}\n" for i in range(40)))
    command = [sys.executable, "-m", "data_prep", "jsonl", str(tmp_path / "s.csv"), "--prompt", "q", "--answer", "a",
               "--val-share", "0.3", "--out", str(tmp_path / "out")]  # fmt: skip

    def run() -> tuple[int, str]:
        done = subprocess.run(command, cwd=project, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert run()[0] == 0
    listed = json.loads((tmp_path / "out/card.json").read_text())["made"]["code"]
    assert listed == code_of("jsonl", project)
    touch(project, "data_prep/_econ/rows.py")
    touch(project, "rewards/sql.py")
    status, text = run()
    assert status == 0 and "already there" in text
    touch(project, "data_prep/_fields.py")
    touch(project, "data_prep/_split.py")
    status, text = run()
    changed = (
        "the code that makes it has changed: data_prep/_fields.py, data_prep/_split.py. Use --force"
    )
    assert status == 2 and changed in text and text.count("\n") == 1
