"""Who may import whom, between the folders of the project, by the code's own import statements."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

ROOMS = ("algos", "data_prep", "launcher", "plugins", "preflight", "rewards", "tools")
# Modules that import nothing of the project and nothing heavy: any room may use them.
LEAVES = {
    "data_prep._chat",
    "data_prep._ranking",
    "data_prep._schema",
    "launcher.checkpoints",
    "launcher.metrics",
    "preflight.mistakes",
    "preflight.tables",
    "rewards._rows",
    "rewards._steps",
    "plugins.rollout.reward_parts",
}
MAY = {  # room → rooms whose modules it may import
    "rewards": set(),
    "data_prep": set(),
    "algos": {"launcher"},  # trainers and drivers are started like verl, and run stages
    "plugins": {"rewards", "algos"},
    "launcher": {"preflight"},
    "preflight": {"rewards", "algos", "data_prep", "plugins"},
    "tools": set(ROOMS),
    "launch": set(ROOMS),
}
HEAVY = {"torch", "verl", "ray", "vllm", "transformers"}
# Modules of tools that compute with models, and need these at once: the others import them in a function.
WITH_MODELS = {
    "tools._export.adapter",
    "tools._export.card",
    "tools._export.held_out",
    "tools._export.proof",
    "tools._export.source",
    "tools._export.tensors",
    "tools._models.transformers",
    "tools._models.vllm",
}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether inside of a function) of each import of a file; `from a import b` gives a.b."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((name.name, lazy) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from ((f"{child.module}.{name.name}", lazy) for name in child.names)
            yield from walk(
                child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            )

    yield from walk(ast.parse(file.read_text()), False)


def is_leaf(module: str) -> bool:
    return any(module == leaf or module.startswith(f"{leaf}.") for leaf in LEAVES)


def files(room: str) -> list[Path]:
    return [ROOT / "launch.py"] if room == "launch" else sorted((ROOT / room).rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_what_it_may(room):
    wrong = []
    for file in files(room):
        for module, _ in imports(file):
            other = module.partition(".")[0]
            if other in {*ROOMS, "launch"} - {room} - MAY[room] and not is_leaf(module):
                wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_rooms_are_those_of_the_project():
    folders = {path.parent.name for path in ROOT.glob("*/*.py")} - {"tests"}
    assert folders == {*ROOMS}


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_a_leaf_imports_nothing_of_the_project(leaf):
    file = ROOT / f"{leaf.replace('.', '/')}.py"
    mine = [m for m, _ in imports(file) if m.partition(".")[0] in ROOMS and not is_leaf(m)]
    assert mine == []


@pytest.mark.parametrize("room", ["rewards", "data_prep", "preflight", "launcher", "tools"])
def test_only_what_runs_inside_of_verl_imports_it(room):
    """In a function all may, but rewards and data_prep, which know nothing of verl."""
    never = {"verl"} if room in ("rewards", "data_prep") else set()
    heavy = never if room == "data_prep" else HEAVY
    found = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files(room)
        for module, lazy in imports(file)
        if module.partition(".")[0] in (never if lazy else heavy | never)
        and name_of(file) not in WITH_MODELS
    ]
    assert found == []


def test_what_computes_with_models_is_imported_late():
    """So that a mistake of the command line, or --help, does not wait for torch."""
    found = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files("tools")
        for module, lazy in imports(file)
        if not lazy
        and name_of(file) not in WITH_MODELS
        and any(module == late or module.startswith(f"{late}.") for late in WITH_MODELS)
    ]
    assert found == []


def test_checks_import_no_other_checks():
    """What several of them need is a fact, in preflight/facts.py or beside it."""
    folder = ROOT / "preflight/checks"
    modules = {file.stem for file in folder.glob("*.py")}
    found = [
        f"{file.name} imports {module}"
        for file in folder.glob("*.py")
        for module, _ in imports(file)
        if module.startswith("preflight.checks.") and module.split(".")[2] in modules
    ]
    assert found == []


def test_the_launcher_starts_light():
    """`--cfg job` and `--help` wait for nothing that they don't need."""
    code = "import sys, launch; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert "hydra" in loaded, done.stderr
    assert not loaded & {*HEAVY, "rewards", "algos", "data_prep", "plugins", "tools", "pandas"}
