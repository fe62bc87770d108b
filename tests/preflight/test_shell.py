"""What preflight.shell understands of a script, against what bash does with it."""

import contextlib
import os
import shutil
import subprocess

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from preflight.shell import UNKNOWN, CantRead, Script

ENV = {"HOME": "/home/me", "PATH": os.environ["PATH"], "SIZE": "7"}


def words(text: str, *arguments: str) -> list[list[str]]:
    return [command.words for command in Script(text, arguments, ENV).commands]


def bash(text: str, *arguments: str) -> list[list[str]]:
    """What bash would start: `run` prints its words."""
    head = 'run() { [ $# = 0 ] || printf "%s\\0" "$@"; printf "\\n"; }\n'
    command = [shutil.which("bash"), "-c", head + text, "script", *arguments]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=20)
    return [line.split("\0")[:-1] for line in done.stdout.split("\n")[:-1]]


SCRIPTS = {
    "defaults": "A=${A:-x}\nB=${SIZE:-3}\nC=${NONE-}\nD=${A:+yes}\nrun $A $B \"$C\" ${D} ${E:=z} $E",
    "arrays": 'X=(a "b c" d=${SIZE})\nX+=(e)\nrun "${X[@]}" ${#X[@]} "${X[1]}" "$@"',
    "an empty array": 'X=(\n)\nrun a "${X[@]}" b',
    "lines": "run a.b=1 \\\n  c='d e' \\\n  \"f=['$HOME/x', '$HOME/y']\" g=['h','i'] # no more\n",
    "if": 'if [ "$SIZE" = 7 ] && [[ $HOME == /home/* ]]; then run yes; elif true; then run no; else run no; fi',
    "else": 'if [ -z "$SIZE" ]; then run no; else run yes; fi',
    "braces": 'if [ "${V:-1}" != 0 ] && { [ a = b ] || [ a = a ]; }; then run yes; fi',
    "numbers": 'if [ "$#" -lt 2 ]; then exit 1; fi\nN=$1\nshift 2\nrun $((N * 1024 / 2)) $(( (1 + SIZE) % 3 )) "$@"',
    "case": 'case "$SIZE" in [0-5]) run no ;; 6 | 7) run yes ;; *) run no ;; esac',
    "for": "for i in 1 2; do run size=$i; done",
    "functions": 'go() { run "$1" "$2"; }\ngo a "b c"',
    "cuts": "P=/a/b/model.tar.gz\nrun ${P##*/} ${P%.gz} ${P%%.*} ${P#/a} ${P/model/m} ${P^^} ${#P} ${P:1:3}",
    "an echo": "X=$(echo yes)\nrun $X `echo no`",
    "either": "X=$(false && echo npu || echo gpu)\nrun $X",
    "exit": "run a\nexit 0\nrun b",
    "quotes": "run 'a$b' \"a\\$b\" a\\ b \"it's\" ''",
    "a list in one word": 'X=(a b)\nrun "${X[*]}" pre${SIZE}post',
    "two in one": "A=1; B=2; run $A$B; run ${A}_$B",
    "upper array": 'declare -a X=(a)\nexport Y=b\nlocal_value=1\nreadonly Z=c\nrun "${X[@]}" $Y $Z',
}  # fmt: skip


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", SCRIPTS)
def test_as_bash_does(name):
    found = [command[1:] for command in words(SCRIPTS[name], "4", "5", "k=v w")]
    assert found == bash(SCRIPTS[name], "4", "5", "k=v w") != []


PART = st.sampled_from(
    ["a", "$A", "${A}", "${N:-d}", "'q r'", '"s $A"', "${A:+t}", "u=1", "$((2*3))"]
)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@settings(max_examples=40)
@given(st.lists(st.lists(PART, min_size=1, max_size=3).map("".join), min_size=1, max_size=5))
def test_words_of_every_shape(parts):
    text = f"A=x\nrun {' '.join(parts)}"
    assert words(text) == [["run", *bash(text)[0]]]


def test_nothing_is_run(tmp_path):
    mark = tmp_path / "mark"
    touch = f"touch {mark}"
    text = (
        f"X=$({touch})\n`{touch}`\n{touch}\nif {touch}; then {touch}; fi\necho x > {mark}\nrun $X"
    )
    assert words(text)[-1] == ["run", UNKNOWN]
    assert not mark.exists()


def test_what_only_a_run_could_tell():
    script = Script(
        'D=$(date +%s)\nif [ "$D" = 1 ]; then run a; fi\ncase $D in *) exit 1 ;; esac\nrun x_$D',
        (),
        ENV,
    )
    assert [command.words for command in script.commands] == [["run", f"x_{UNKNOWN}"]]
    assert len(script.doubts) == 2 and "line 2" in script.doubts[0]


def test_a_usage_of_a_script_without_arguments_does_not_end_it():
    assert words('if [ "$#" -lt 1 ]; then exit 1; fi\nrun n=$1 "$@"') == [["run", f"n={UNKNOWN}"]]


def test_variables_of_a_command():
    script = Script("export A=1\nA=2\nB=3 run x\nrun y", (), ENV)
    assert [command.variables for command in script.commands] == [{"A": "2", "B": "3"}, {"A": "2"}]


@pytest.mark.parametrize("text", ["if [ a = b ]; then run", "run 'a", "X=(a b"])
def test_what_is_no_script(text):
    with pytest.raises(CantRead, match="line 1 is no shell"):
        Script(text, (), ENV)


@settings(max_examples=100)
@given(st.text(alphabet="a$({['\"})] =;|&\\\n`#*@-+x1", max_size=40))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(CantRead):
        assert isinstance(Script(text, (), ENV).commands, list)
