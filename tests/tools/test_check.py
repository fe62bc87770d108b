"""`make check`: a line a check, notes, and an exit status; nothing is started."""

import pytest

from preflight.checks import DEFAULT, SLOW, checks
from tools.check import main

pytestmark = pytest.mark.usefixtures("own_hydra")


@pytest.fixture
def check(sql_demo, tiny_model, tmp_path, capsys):
    """`check("algo=ppo", ...)` → exit status, lines of standard output, standard error."""

    def go(*words: str):
        status = main([f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", f"hydra.run.dir={tmp_path}/run",
                       *words])  # fmt: skip
        said = capsys.readouterr()
        assert not (tmp_path / "run").exists()
        return status, said.out.splitlines(), said.err

    return go


def test_a_good_run(check):
    status, lines, _ = check("lab.preflight.skip=[verls_verdict,check_disk]")
    count = len(checks(DEFAULT)) + len(checks(SLOW))
    told = dict(line.split(maxsplit=1) for line in lines[:count])
    assert status == 0 and lines[-1].startswith("nothing is wrong")
    assert len(told) == count
    rest = "\n".join(lines[count:])
    assert "GiB of this machine" in rest and "a step: about" in rest
    assert told["verls_verdict"] == told["disk"] == "left out by lab.preflight.skip"
    assert told["rl_batch"] == "ok"
    assert told["lengths_of_rows"].startswith("data.train_files: ")
    assert told["reward"].startswith("16 reference answers score 1 to 1, empty ones up to 0.")


def test_what_is_wrong_is_told_and_counted(check):
    skip = "lab.preflight.skip=[verls_verdict,lengths_of_rows,turns,reward,gpus]"
    status, lines, _ = check(skip, "algorithm.adv_estimator=grop", "trainer.test_freq=x")
    assert status == 2 and lines[-1] == "2 wrong: estimator, frequencies"
    assert sum("WRONG: " in line for line in lines) == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["algo=grop"], "Did you mean grpo?"),
        (["data.trian_files=x"], "unknown key 'data.trian_files'"),
        (["+x.password=abc"], "no secret on the command line"),
    ],
)
def test_what_cannot_be_composed_is_a_line(check, words, text):
    status, lines, err = check(*words)
    assert (status, lines) == (2, []) and text in err and err.count("\n") == 1


def test_an_unknown_name_is_a_mistake(check):
    status, lines, _ = check("lab.preflight.skip=[diks]", "data.train_batch_size=x")
    assert status == 2
    assert lines[lines.index("") - 1].endswith("they were not made)")
    assert "no plan: data.train_batch_size=x must be a whole number." in lines
    assert lines[-1] == "1 wrong: values"
    status, lines, _ = check("lab.preflight.skip=[diks]")
    assert any("Did you mean disk?" in line for line in lines)
    assert (status, lines[-1]) == (2, "1 wrong: skip")
