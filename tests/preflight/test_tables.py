"""Tables: the same text everywhere, whatever a terminal can do."""

import pytest

from preflight.tables import text


def test_numbers_are_set_to_the_right_and_words_to_the_left():
    rows = [["*", "short", 3, "-0.25", "a b"], ["", "longer", 12, "-", ""]]
    assert text(["", "job", "steps", "reward", "overrides"], rows).splitlines() == [
        "   job     steps  reward  overrides",
        "*  short       3   -0.25  a b",
        "   longer     12       -",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("FORCE_COLOR", "1"), ("COLUMNS", "20"), ("TERM", "dumb")]
)
def test_nothing_is_coloured_wrapped_cut_or_read_as_markup(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    long = "overrides=[red] :smile: " + "x" * 300
    assert text(["a", "b"], [["1", long]]) == f"a  b\n1  {long}"


def test_heads_are_broken_where_the_lines_are_too_long():
    heads, rows = ["GiB", "weight sync", "critic update"], [["logits", "1.25", "-"]]
    assert text(heads, rows, 40).splitlines()[0] == "GiB     weight sync  critic update"
    assert text(heads, rows, 30).splitlines() == [
        "        weight  critic",
        "GiB       sync  update",
        "logits    1.25       -",
    ]


def test_no_rows():
    assert text(["a", "b c"], []) == "a  b c"
