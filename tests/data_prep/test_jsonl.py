"""jsonl: every format, broken and hostile content; each row is kept, or counted with its reason."""

import csv
import datetime
import decimal
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import _schema
from data_prep.__main__ import main
from data_prep._read import PIECE, _array, read
from preflight.mistakes import Mistake

ROWS = [{"q": f"Wie groß ist {i}? 大きさ 🙂", "a": f"{i} Å"} for i in range(40)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def prepare(folder, source, *options: str) -> int:
    command = ["jsonl", str(source), "--prompt", "q", "--answer", "a", "--out", str(folder / "out")]
    return main([*command, "--val-share", "0.3", "--force", *options])


def made(folder) -> dict[str, list[dict]]:
    """The RL rows by split, each checked with its SFT row."""
    found = {}
    for split in ("train", "val"):
        found[split] = pq.read_table(folder / f"out/{split}.parquet").to_pylist()
        for row in found[split]:
            assert _schema.check("rl", row) == [] and row["extra_info"]["split"] == split
        sft = pq.read_table(folder / f"out/sft_{split}.parquet").to_pylist()
        for row, lesson in zip(found[split], sft, strict=True):
            answer = {"role": "assistant", "content": row["reward_model"]["ground_truth"]}
            assert lesson["messages"] == [*row["prompt"], answer]
    return found


def pairs(folder) -> list[tuple[str, str]]:
    """(question, answer) of all rows, in the order of the source."""
    found = made(folder)
    rows = sorted(found["train"] + found["val"], key=lambda row: row["extra_info"]["index"])
    return [(r["prompt"][-1]["content"], r["reward_model"]["ground_truth"]) for r in rows]


def rejected(folder) -> list[dict]:
    file = folder / "out/rejected.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def counts(folder) -> dict:
    return json.loads((folder / "out/card.json").read_text())["counts"]


def as_csv(delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["q", "a"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


FORMATS = {
    "lines.jsonl": LINES,
    "unicode.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "bom.jsonl": "\ufeff" + LINES,
    "crlf.jsonl": LINES.replace("\n", "\r\n"),
    "blank lines, no last end.jsonl": "\n \n" + LINES.replace("\n", "\n\n").rstrip("\n"),
    "array.json": json.dumps(ROWS),
    "indented.json": "\ufeff \n" + json.dumps(ROWS, indent=2, ensure_ascii=False) + "\n\n",
    "lines called.json": LINES,
    "table.csv": as_csv(","),
    "bom.csv": "\ufeff" + as_csv(","),
    "line ends.CSV": as_csv(",").replace("\r\n", "\n"),
    "semicolons.csv": as_csv(";"),
    "bars.csv": as_csv("|"),
    "tabs.csv": as_csv("\t"),
    "table.tsv": as_csv("\t"),
    "utf-16.jsonl": LINES.encode("utf-16"),
    "utf-16.csv": as_csv("\t").encode("utf-16"),
    "table.parquet": as_parquet(),
    "parquet without its ending": as_parquet(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    content = FORMATS[name]
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert prepare(tmp_path, source) == 0
    assert pairs(tmp_path) == [(row["q"], row["a"]) for row in ROWS]
    assert counts(tmp_path)["read"] == 40 and counts(tmp_path)["rejected"] == 0


BROKEN = [  # a line, and the reason that it must be rejected with
    (b'{"q": "cut off', "not JSON"),
    (b"not JSON at all", "not JSON"),
    (b"[1, 2]", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'{"q": "raw NUL \0", "a": "1"}', "not JSON"),
    (b'{"q": "Latin-1 \xfc", "a": "1"}', "prompt[0].content: not valid UTF-8"),
    (b'{"q": "\\ud800", "a": "1"}', "prompt[0].content: not valid UTF-8"),
    (b'{"a": "1"}', "column q is missing, there is a"),
    (b"{}", "column q is missing, there is nothing"),
    (b'{"q": "", "a": "1"}', "column q is blank"),
    (b'{"q": " \\t", "a": "1"}', "column q is blank"),
    (b'{"q": null, "a": "1"}', "column q is blank"),
    (b'{"q": "no answer"}', "column a is missing, there is q"),
    (b'{"q": [], "a": "1"}', "prompt: empty"),
    (b'{"q": [1], "a": "1"}', "prompt[0]: is of type int"),
    (b'{"q": [{"role": "user"}], "a": "1"}', "prompt[0].content: missing"),
    (b'{"q": [{"role": "user", "content": "x", "name": "Bo"}], "a": "1"}', "prompt[0].name: a"),
    (b'{"q": ' + b"[" * 5000 + b"]" * 5000 + b', "a": "1"}', "not JSON: maximum recursion"),
    (b'{"q": ' + b"7" * 5000 + b', "a": "1"}', "not JSON: Exceeds the limit"),
]


def test_broken_lines_are_kept_aside_with_their_reason(tmp_path):
    source = tmp_path / "mixed.jsonl"
    source.write_bytes(LINES.encode() + b"\n".join(line for line, _ in BROKEN))
    assert prepare(tmp_path, source, "--on-bad", "skip") == 0
    assert pairs(tmp_path) == [(row["q"], row["a"]) for row in ROWS]
    assert counts(tmp_path)["read"] == 40 + len(BROKEN)
    assert counts(tmp_path)["rejected"] == len(BROKEN)
    found = rejected(tmp_path)
    assert [line["row"] for line in found] == list(range(40, 40 + len(BROKEN)))
    for line, (raw, reason) in zip(found, BROKEN, strict=True):
        assert line["reason"].startswith(reason), line["reason"][:200]
        data = line["data"]
        text = data if isinstance(data, str) else json.dumps(data)
        assert json.loads(json.dumps(text)) == text and len(text) >= len(raw.strip()) // 2


def test_broken_lines_fail_by_default_and_nothing_is_written(tmp_path, capsys):
    source = tmp_path / "mixed.jsonl"
    source.write_text(LINES + '{"question": "x", "a": "1"}\n' * 12)
    assert prepare(tmp_path, source) == 2
    error = capsys.readouterr().err
    assert "12 of 52 rows are bad" in error and error.count("\n") == 12
    assert "mixed.jsonl row 40: column q is missing, there is question, a" in error
    assert not (tmp_path / "out").exists()


text = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)
line = st.one_of(
    text.map(str.encode),
    st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")),
    st.fixed_dictionaries({"q": text, "a": st.none() | st.floats() | text | st.lists(text)}).map(
        lambda row: json.dumps(row).encode()
    ),
)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(line, max_size=12))
def test_no_line_is_lost_without_being_counted(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("lines")
    (folder / "any.jsonl").write_bytes(LINES.encode() + b"\n".join(lines))
    assert prepare(folder, folder / "any.jsonl", "--on-bad", "skip") == 0
    asked = sum(bool(raw.decode("utf-8", "surrogateescape").strip()) for raw in lines)
    assert counts(folder)["read"] == 40 + asked
    assert len(pairs(folder)) + len(rejected(folder)) == 40 + asked


def test_values_that_are_no_text(tmp_path):
    row = {
        "n": 3,
        "d": decimal.Decimal("1.50"),
        "t": datetime.datetime(2024, 1, 2, 3, 4),
        "l": ["ä", "b"],
        "b": True,
    }
    rows = [{"q": f"bytes {i}".encode(), **row} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "typed.parquet")
    spec = "{{n}}|{{d}}|{{t}}|{{l}}|{{ b }}|{n}"
    assert prepare(tmp_path, tmp_path / "typed.parquet", "--answer", spec) == 0
    answer = '3|1.50|2024-01-02 03:04:00|["ä", "b"]|true|{n}'
    assert pairs(tmp_path) == [(f"bytes {i}", answer) for i in range(20)]


CSV_PROBLEMS = [  # lines after 40 good ones, what is rejected of them (the text), the reason
    ("one\n", ["one\n"], "1 cells under a header of 2"),
    ("a,b,c\n", ["a,b,c\n"], "3 cells under a header of 2"),
    ('"x"y,1\nq,a\n', ['"x"y,1\n'], "not CSV: ',' expected after"),
    ('"open,1\nq8,a\nq9,b\n', ['"open,1\nq8,a\nq9,b\n'], "not CSV: unexpected end"),
]


@pytest.mark.parametrize(("more", "bad", "reason"), CSV_PROBLEMS)
def test_broken_csv_is_kept_aside_with_its_text(tmp_path, more, bad, reason):
    (tmp_path / "t.csv").write_text(as_csv(",") + more, newline="")
    assert prepare(tmp_path, tmp_path / "t.csv", "--on-bad", "skip") == 0
    assert [line["data"] for line in rejected(tmp_path)] == bad
    assert rejected(tmp_path)[0]["reason"].startswith(reason)
    assert counts(tmp_path)["read"] == len(pairs(tmp_path)) + len(bad) >= 41


def test_cells_may_hold_anything(tmp_path):
    (tmp_path / "t.csv").write_text(as_csv(",") + '"a\nb, ""c""",NUL \0\n', newline="")
    assert prepare(tmp_path, tmp_path / "t.csv") == 0
    assert pairs(tmp_path)[40:] == [('a\nb, "c"', "NUL \0")]


def test_array_elements_across_pieces(tmp_path):
    """Elements of all lengths around the size of the pieces that are read, and wrong ones."""
    rows = [{"q": f"{i} " + "ü" * (PIECE * i // 70), "a": "\\u00fc" * i} for i in range(20)]
    text = json.dumps([*rows[:9], 7, *rows[9:], [1], {"q": "x"}], indent=3)
    (tmp_path / "long.json").write_text(text)
    assert prepare(tmp_path, tmp_path / "long.json", "--on-bad", "skip") == 0
    assert pairs(tmp_path) == [(row["q"], row["a"]) for row in rows if row["a"]]
    reasons = [line["reason"] for line in rejected(tmp_path)]
    wrong = "not a JSON object"
    assert reasons == ["column a is blank", wrong, wrong, "column a is missing, there is q"]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('"q, all";a\n"x, y; z";"c, b"\nd, e;f\n', [["x, y; z", "c, b"], ["d, e", "f"]]),
        ("q;q, all;a\n1;x, y;b\n2;z;c\n", [["x, y", "b"], ["z", "c"]]),
        ('q,"q, all",a\n1;2,x|y,b\n3;4,"z;\nw",c\n', [["x|y", "b"], ["z;\nw", "c"]]),
        ('"q, all"|a\n"say ""a,b"";"|b\n', [['say "a,b";', "b"]]),
    ],
)
def test_the_delimiter_is_the_one_that_fits_the_header(tmp_path, text, rows):
    (tmp_path / "x.csv").write_text(text)
    found = [[row["q, all"], row["a"]] for row in read(tmp_path / "x.csv")]
    assert found == rows


def test_a_file_of_one_column_has_no_delimiter(tmp_path):
    (tmp_path / "x.csv").write_text("text\nall; of, it\n")
    assert [row.why for row in read(tmp_path / "x.csv")] == ["2 cells under a header of 1"]
    assert list(read(tmp_path / "x.csv", delimiter="#")) == [{"text": "all; of, it"}]


@pytest.mark.parametrize("name", ["cp1252", "latin-1", "big5", "shift_jis", "gb18030", "utf-16-le"])
def test_another_encoding_is_an_option(tmp_path, name):
    word = "大" if name in ("big5", "shift_jis", "gb18030", "utf-16-le") else "groß"
    rows = "".join(f"{i} {word};{word}\n" for i in range(20))
    (tmp_path / "x.csv").write_bytes(f"q;a\n{rows}".encode(name))
    assert prepare(tmp_path, tmp_path / "x.csv", "--encoding", name) == 0
    assert pairs(tmp_path) == [(f"{i} {word}", word) for i in range(20)]


@pytest.mark.parametrize("header", ["q,a", "größe,a"])
def test_a_file_in_another_encoding_is_told_the_option(tmp_path, capsys, header):
    rows = "".join(f"{i} groß,b\n" for i in range(20))
    (tmp_path / "x.csv").write_bytes(f"{header}\n{rows}".encode("latin-1"))
    assert prepare(tmp_path, tmp_path / "x.csv") == 2
    assert "--encoding (cp1252" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "x.csv")]) == 2
    assert "--encoding (cp1252" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "x.csv"), "--encoding", "latin-1"]) == 0
    assert next(row[header[:-2]] for row in read(tmp_path / "x.parquet")) == "0 groß"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--encoding", "utf-9"], "there is no encoding 'utf-9'"),
        (["--encoding", "rot13"], "there is no encoding 'rot13'"),
        (["--encoding", "utf-16"], "is not utf-16"),
        (["--delimiter", "ab"], "'ab' is not one character"),
        (["--delimiter", ""], "'' is not one character"),
        (["--delimiter", "#"], "column q is missing, there is q,a"),
    ],
)
def test_a_wrong_encoding_or_delimiter_is_told(tmp_path, capsys, option, said):
    (tmp_path / "x.csv").write_text(as_csv(","))
    assert prepare(tmp_path, tmp_path / "x.csv", *option) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_rows_are_said_to_count_from_0(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("q,a\nx,1\ny,  \nz,3\n")
    assert prepare(tmp_path, tmp_path / "x.csv") == 2
    error = capsys.readouterr().err
    assert "row 1: column a is blank" in error and "row 0 is the first" in error


UNREADABLE = {  # name: (content, what the one line must say)
    "empty.jsonl": (b"", "empty.jsonl has no rows"),
    "blank.json": (b" \n\n ", "blank.json has no rows"),
    "empty.json": (b" [ ] ", "empty.json has no rows"),
    "header.csv": (b"q,a\n", "header.csv has no rows"),
    "empty.csv": (b"", "the header of"),
    "twice.csv": (b"q,q,a\n1,2,3\n", "names a column twice"),
    "quote.csv": (b'"q"x,a\n1,2\n', "is not CSV"),
    "cut.json": (json.dumps(ROWS).encode()[:-9], "element 39: Unterminated string"),
    "wrong.json": (json.dumps(ROWS).replace("}, {", "} {", 1).encode(), "element 0: ',' or ']'"),
    "deep.json": (b"[" * 5000, "element 0: maximum recursion"),
    "more.json": (json.dumps(ROWS).encode() + b'\n{"q": 1}', "goes on after the end"),
    "cut.jsonl": (LINES.encode("utf-16")[:-1], "is not utf-16"),
    "packed.jsonl.gz": (b"\x1f\x8b\x08\x00", "is gzip"),
    "magic.parquet": (b"PAR1", "is not a readable parquet file"),
    "cut.parquet": (as_parquet()[:-9], "is not a readable parquet file"),
    "worn.parquet": (as_parquet()[:40] + b"\xff" * 300 + as_parquet()[340:], "is not a readable"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_unreadable_is_told_in_a_line(tmp_path, capsys, name):
    content, said = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    assert prepare(tmp_path, tmp_path / name, "--on-bad", "skip") == 2
    error = capsys.readouterr().err
    assert said in error and name in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_broken_array_is_not_read_to_its_end(tmp_path):
    """The error comes from the first piece; the rest of a huge file would only fill the memory."""
    file = tmp_path / "broken.json"
    file.write_text("[{'q'" + " " * 4 * PIECE)
    with file.open() as f:
        with pytest.raises(Mistake, match="element 0: Expecting property name"):
            next(_array(f, file))
        assert f.tell() <= 2 * PIECE


def test_rows_that_another_tool_has_written(tmp_path):
    """Prompts as text or as ShareGPT's messages, ground truths in a mapping: what a check sends here."""
    shared = [{"from": "system", "value": "Be short."}, {"from": "human", "value": "1 + 1?"}]
    rows = [
        {"prompt": prompt, "reward_model": {"ground_truth": "2"}} for prompt in (shared, "1 + 1?")
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    words = [
        "--prompt",
        "prompt",
        "--answer",
        "reward_model.ground_truth",
        "--val-share",
        "0.5",
        "--out",
        str(out),
    ]
    assert main(["jsonl", str(file), *words]) in (None, 0)
    made = [
        row
        for name in ("train", "val")
        for row in pq.read_table(out / f"{name}.parquet").to_pylist()
    ]
    asked = {"role": "user", "content": "1 + 1?"}
    assert sorted((row["prompt"] for row in made), key=len) == [
        [asked],
        [{"role": "system", "content": "Be short."}, asked],
    ]
    assert [row["reward_model"]["ground_truth"] for row in made] == ["2", "2"]
