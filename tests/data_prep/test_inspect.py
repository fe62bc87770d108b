"""The command line of data_prep, and what `inspect` says of any parquet file."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT

from data_prep.__main__ import main, names

ASK = [{"role": "user", "content": "Größe?\x1b[31m\nZweite Zeile"}]
TELL = [{"role": "assistant", "content": "7"}]


def inspect(capsys, file, *options: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    code = main(["inspect", str(file), *options])
    return code, *capsys.readouterr()


def write(file, rows: list[dict]):
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def test_good_rows(tmp_path, capsys):
    file = write(tmp_path / "sft.parquet", [{"messages": ASK + TELL}] * 3)
    code, out, _ = inspect(capsys, file)
    assert code == 0
    assert "3 sft rows, 1 row groups" in out and "problems: none" in out
    assert "messages: list<element: struct<role: string, content: string>>" in out
    assert "prompt length in characters: p50 24, p95 24, max 24" in out
    assert "\x1b" not in out and "Größe?\\x1b[31m\n        | Zweite Zeile" in out
    assert out.count("row 0") == 1 and "row 1" not in out


def test_lengths_in_tokens(tmp_path, capsys, tiny_model):
    file = write(tmp_path / "sft.parquet", [{"messages": ASK + TELL}])
    code, out, _ = inspect(capsys, file, "--tokenizer", str(tiny_model), "--head", "0")
    assert code == 0 and "answer length in tokens: p50 1, p95 1, max 1" in out
    assert "row 0" not in out


def test_bad_rows_are_counted_with_their_number_and_field(tmp_path, capsys):
    bad = {"messages": [*ASK, {"role": "robot", "content": "7"}]}
    file = write(tmp_path / "sft.parquet", [{"messages": ASK + TELL}, *[bad] * 12])
    code, out, _ = inspect(capsys, file)
    assert code == 1 and "13 sft rows" in out and "problems: 12 (row 0 is the first row)\n" in out
    assert "  row 1: messages[1].role: 'robot' is none of" in out
    assert out.count("'robot' is none of") == 10


def test_columns_of_no_known_kind(tmp_path, capsys):
    file = write(tmp_path / "other.parquet", [{"a": 1, "b": {"c": [b"\x00", None]}}, {"a": 2}])
    code, out, _ = inspect(capsys, file, "--head", "5")
    assert code == 0 and "2 rows of no known kind" in out and "sft: messages" in out
    assert "row 1" in out and "row 2" not in out


def test_a_file_without_rows(tmp_path, capsys):
    schema = pa.Table.from_pylist([{"messages": ASK + TELL}]).schema
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    code, out, _ = inspect(capsys, tmp_path / "none.parquet")
    assert code == 0 and "0 sft rows" in out and "no good rows" in out


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"PAR1" * 30, b'{"q": 1}\n'])
def test_no_parquet_file_is_told_in_a_line(tmp_path, capsys, content):
    file = tmp_path / "x.parquet"
    if content is not None:
        file.write_bytes(content)
    code, out, error = inspect(capsys, file)
    assert (code, out, error.count("\n")) == (2, "", 1) and str(file) in error


def test_text_that_is_not_utf8_is_told_in_a_line(tmp_path, capsys):
    ends = pa.py_buffer(b"\0\0\0\0\2\0\0\0")
    column = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"q": column}), tmp_path / "x.parquet")
    code, _, error = inspect(capsys, tmp_path / "x.parquet")
    assert code == 2 and "is not a readable parquet file" in error and error.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(tmp_path):
    file = write(tmp_path / "many.parquet", [{"a": "x" * 1000}] * 500)
    read, written = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep", "inspect", file, "--head", "500"],
        cwd=ROOT,
        stdout=written,
        stderr=subprocess.PIPE,
    )
    os.close(written)
    os.close(read)
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == 0


@pytest.mark.parametrize(
    ("asked", "meant"), [("sqldemo", "sql_demo"), ("Spider", "spider"), ("insepct", "inspect")]
)
def test_an_unknown_name_brings_the_nearest(capsys, asked, meant):
    assert main([asked]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"data_prep: unknown name {asked!r}. Did you mean {meant}? There is: ")
    assert all(name in error for name in names()) and error.count("\n") == 1


@pytest.mark.parametrize("asked", ["xyzzy", "_schema", "__main__", "../launch", ""])
def test_a_name_far_from_all_brings_the_list(capsys, asked):
    assert main([asked]) == 2
    error = capsys.readouterr().err
    assert f"There is: {', '.join(names())}" in error and "Did you mean" not in error


@pytest.mark.parametrize("name", names())
def test_every_name_has_help(capsys, name):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m data_prep {name}") and "options:" in out


def test_help_lists_every_name_with_its_line(capsys):
    assert (main(["--help"]), main([])) == (0, 2)
    out = capsys.readouterr().out
    for name, line in names().items():
        assert out.count(f"  {name} ") == 2 and line.endswith(".") and line in out
