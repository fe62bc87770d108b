"""A conversation as a person has it: in a pipe, in a terminal, with a server, with a model of this machine."""

import fcntl
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios

import pytest
from chat_server import ChatServer
from helpers import ROOT, heed_ctrl_c

from preflight.mistakes import Mistake
from tools._chat.commands import checked
from tools._chat.talk import labels
from tools._chat.terminal import harmless, spans, spoken
from tools._models.naming import Model
from tools.chat import main

pytestmark = pytest.mark.usefixtures("own_hydra")
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if "raise" in solution_str:
        raise ValueError("a bug of the reward")
    return {"score": float(ground_truth in solution_str), "length": len(solution_str)}
"""


@pytest.fixture
def talk(own_hydra, monkeypatch, capsys):
    """`talk(MODEL, lines, *options)` → exit status, what was printed, what went to standard error."""

    def go(*argv, lines=()) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        status = main(["hw=cpu", *map(str, argv)])
        text = capsys.readouterr()
        return status, text.out, text.err

    return go


@pytest.fixture
def server():
    with ChatServer("An ", "answer.") as one:
        yield one


@pytest.fixture
def words(tmp_path):
    """dataset= and reward= of three rows."""
    rows = [
        {"prompt": f"Say {word}.", "ground_truth": word} for word in ("nothing", "answer", "raise")
    ]
    data = tmp_path / "data"
    data.mkdir()
    import pandas

    frame = pandas.DataFrame(
        {"data_source": "own", "prompt": [[{"role": "user", "content": r["prompt"]}] for r in rows],
         "reward_model": [{"style": "rule", "ground_truth": r["ground_truth"]} for r in rows],
         "extra_info": [{"index": i} for i in range(3)]}
    )  # fmt: skip
    for name in ("train", "val"):
        frame.to_parquet(data / f"{name}.parquet")
    (tmp_path / "my.py").write_text(REWARD)
    return "dataset=jsonl", f"lab.dataset.dir={data}", f"reward={tmp_path}/my.py"


def contents(payload: dict) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in payload["messages"]]


def test_each_question_has_what_was_said_before_it(talk, server):
    status, out, _ = talk(server.url, "--system", "Be brief.", lines=["One?", "Two?"])
    assert status == 0
    assert out.count("An answer.") == 2
    assert contents(server.payloads[1]) == [
        ("system", "Be brief."), ("user", "One?"), ("assistant", "An answer."), ("user", "Two?"),
    ]  # fmt: skip


def test_reset_undo_and_system(talk, server):
    talk(server.url, lines=["One?", "/reset", "Two?", "Three?", "/undo", "/system Be kind.", "Four?", "/undo",
                            "/system none", "Five?"])  # fmt: skip
    two = [("user", "Two?"), ("assistant", "An answer.")]
    assert contents(server.payloads[1]) == [("user", "Two?")]
    assert contents(server.payloads[3]) == [("system", "Be kind."), *two, ("user", "Four?")]
    assert contents(server.payloads[4]) == [*two, ("user", "Five?")]


def test_regen_asks_the_same_with_another_seed(talk, server, tmp_path):
    talk(server.url, "--seed", 7, lines=["One?", "/regen", f"/save {tmp_path}/said.jsonl"])
    first, second = server.payloads
    assert first["messages"] == second["messages"]
    assert (first["seed"], second["seed"]) == (7, 8)
    saved = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [(line["role"], line["content"]) for line in saved] == [
        ("user", "One?"),
        ("assistant", "An answer."),
    ]
    assert saved[1]["seed"] == 8


def test_set_changes_how_answers_are_drawn(talk, server):
    _, out, _ = talk(server.url, lines=["/set temperature=0.25 top_p=0.5 max_tokens=9 top_k=3", "One?",
                                        "/set temperature=-1", "/set tmperature=1", "/set"])  # fmt: skip
    asked = server.payloads[0]
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"], asked["top_k"]) == (
        0.25,
        0.5,
        9,
        3,
    )
    assert "error: temperature=-1" in out
    assert "Did you mean temperature?" in out
    assert out.count("temperature=0.25  top_p=0.5  top_k=3  max_tokens=9") == 2


def test_a_question_of_several_lines(talk, server):
    talk(
        server.url,
        lines=['"""', "  a = 1", "/quit", '"""', "b \\", "c", " /not a command", '"""one"""'],
    )
    asked = [payload["messages"][-1]["content"] for payload in server.payloads]
    assert asked == ["  a = 1\n/quit", "b \nc", "/not a command", "one"]


def test_a_block_without_its_end_is_not_asked(talk, server):
    status, out, _ = talk(server.url, lines=['"""', "half"])
    assert (status, server.payloads) == (0, [])
    assert "was not ended" in out


def test_save_never_overwrites(talk, server, tmp_path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    _, out, _ = talk(
        server.url, lines=["One?", f"/save {kept}", f"/save {tmp_path}/no/where", "/save", "Two?"]
    )
    assert kept.read_text() == "mine"
    assert out.count("error: ") == 3
    assert len(server.payloads) == 2


def test_half_a_character_can_be_saved(tmp_path):
    from tools._chat.talk import Said, Talk, Turn

    talk = Talk([], None, None, 0)
    said = Said("a", "a", 0, {"r": {"why": "\ud800"}})
    talk.turns.append(Turn([{"role": "user", "content": "One?"}], answers={"m": said}))
    assert talk.save(tmp_path / "kept.jsonl") == 2


def test_unknown_commands_name_the_near_one(talk, server):
    _, out, _ = talk(server.url, lines=["/rset", "/quit", "never asked"])
    assert "Did you mean /reset?" in out
    assert server.payloads == []


def test_two_models_have_histories_of_their_own(talk):
    with ChatServer("left") as left, ChatServer("right") as right:
        _, out, _ = talk(f"{left.url}#served", "--with", right.url, lines=["One?", "Two?"])
        assert contents(left.payloads[1]) == [
            ("user", "One?"),
            ("assistant", "left"),
            ("user", "Two?"),
        ]
        assert contents(right.payloads[1]) == [
            ("user", "One?"),
            ("assistant", "right"),
            ("user", "Two?"),
        ]
    assert out.index("left") < out.index("right")


def test_an_error_of_the_server_is_a_line_and_the_question_is_not_in_the_history(
    talk, server, monkeypatch
):
    lines = iter(["One?", "Two?", "Three?"])

    def typed(prompt: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        server.status = 500 if line == "Two?" else 200
        return line

    monkeypatch.setattr("builtins.input", typed)
    status, out, _ = talk(server.url)
    assert status == 0
    assert "error: " in out and "answered 500" in out
    assert contents(server.payloads[-1]) == [
        ("user", "One?"),
        ("assistant", "An answer."),
        ("user", "Three?"),
    ]


def test_a_stream_that_breaks_is_a_line(talk, server):
    server.broken = 1
    status, out, _ = talk(server.url, lines=["One?"])
    assert status == 0
    assert "An \nerror: " in out


def test_regen_keeps_an_answer_when_the_server_fails(talk, server, monkeypatch, tmp_path):
    file = tmp_path / "said.jsonl"
    lines = iter(["One?", "/regen", f"/save {file}"])

    def typed(prompt: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        server.status = 500 if line == "/regen" else 200
        return line

    monkeypatch.setattr("builtins.input", typed)
    talk(server.url)
    assert json.loads(file.read_text().splitlines()[1])["content"] == "An answer."


def test_reasoning_is_not_in_the_history(talk):
    with ChatServer("<th", "ink>hm</thi", "nk>\n\nSo.") as server:
        _, out, _ = talk(server.url, lines=["One?", "Two?"])
        assert "<think>hm</think>" in out
        assert contents(server.payloads[1])[1] == ("assistant", "So.")


def test_reasoning_that_a_server_sends_apart(talk):
    with ChatServer("So.", reasoning="hm") as server:
        _, out, _ = talk(server.url, lines=["One?", "Two?"])
        assert "<think>hm</think>\n\nSo." in out
        assert contents(server.payloads[1])[1] == ("assistant", "So.")


def test_a_cut_answer_says_what_to_do(talk):
    with ChatServer("So", finish="length") as server:
        _, out, _ = talk(server.url, "--max-tokens", 1, lines=["One?"])
    assert "/set max_tokens=2" in out


def test_a_row_is_asked_alone_and_scored(talk, server, words):
    _, out, _ = talk(
        server.url, *words, lines=["Hello.", "/row 1", "More?", "/undo", "/undo", "And?", "/row 0"]
    )
    assert contents(server.payloads[1]) == [("user", "Say answer.")]
    assert contents(server.payloads[2])[0] == ("user", "Say answer.")
    assert contents(server.payloads[3]) == [
        ("user", "Hello."),
        ("assistant", "An answer."),
        ("user", "And?"),
    ]
    right, wrong = out.split("Say nothing.")
    assert "reward my 1  length 10" in right
    assert "reward my 0  length 10" in wrong
    assert "reference answer\nanswer\n" in right


def test_a_row_that_is_not_there_and_a_reward_that_fails_are_lines(talk, words):
    with ChatServer("raise") as server:
        status, out, _ = talk(
            server.url, *words, lines=["/row 3", "/row x", "/row", "/row 2", "/row random"]
        )
    assert status == 0
    assert "has rows 0 to 2" in out
    assert "a bug of the reward" in out
    assert out.count("error: ") == 5


def test_begin_with_a_row(talk, server, words):
    _, out, _ = talk(server.url, *words, "--row", 1)
    assert "reward my 1" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["no/such/folder/here"], "no such folder"),
        (["tinny"], "Did you mean tiny?"),
        (["URL", "reward=exact"], "dataset=NAME"),
        (["URL", "--row", "1"], "dataset=NAME"),
        (["URL", "--template", "chatml"], "--template is for models that are loaded here"),
        (["URL", "dataset=sql_dem"], "Did you mean sql_demo?"),
        (["URL", "lab.nothing=1"], "unknown key"),
    ],
)
def test_mistakes_are_a_line_and_exit_2(talk, server, argv, said):
    status, _, err = talk(*(server.url if word == "URL" else word for word in argv))
    assert status == 2
    assert said in err
    assert "Traceback" not in err


def test_a_row_out_of_range_ends_before_the_model_is_loaded(talk, server, words):
    status, _, err = talk(server.url, *words, "--row", 3)
    assert (status, server.payloads) == (2, [])
    assert "rows 0 to 2" in err and "loading" not in err


def test_a_server_that_is_down(talk):
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        status, _, err = talk(f"http://127.0.0.1:{held.getsockname()[1]}/v1")
    assert status == 2
    assert "can't be reached" in err


def test_a_server_that_answers_500(talk, server):
    server.status = 500
    status, _, err = talk(server.url)
    assert status == 2
    assert "answered 500" in err


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b31m",
        "a\rb",
        "\x08\x08",
        "\u202eabc",
        "\x7f",
        "\ud800",
        "\x00",
    ],
)
def test_nothing_that_a_model_says_moves_the_terminal(text):
    shown = harmless(text)
    assert all(c >= " " and c != "\x7f" and not 0x80 <= ord(c) < 0xA0 for c in shown)
    assert "\u202e" not in shown
    shown.encode()


def test_ordinary_text_stays_as_it_is():
    text = "Zeilen\n\tmit ünïcode 日本語 🙂 [bold]x[/bold]"
    assert harmless(text) == text


def as_text(found: list[tuple[str, bool]]) -> tuple[str, str]:
    return "".join(t for t, dim in found if dim), "".join(t for t, dim in found if not dim)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "opened", "thought"),
    [
        ("<think>a < b</think>yes", False, "<think>a < b</think>"),
        ("\n<think>a</think><think>b", False, "\n<think>a</think>"),
        ("a</thin</think>yes", True, "a</thin</think>"),
        ("no end</thi", True, "no end</thi"),
        ("<thin air", False, ""),
        ("say <think>x</think>", False, ""),
        ("<thi", False, ""),
        ("", False, ""),
    ],
)
def test_reasoning_is_told_apart_however_it_is_split(text, opened, thought, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = as_text(list(spans(pieces, opened)))
    assert found == (thought, text.removeprefix(thought))


def test_what_was_spoken():
    assert spoken("<think>a</think>\n\nb", False) == "b"
    assert spoken("a</think>b", True) == "b"
    assert spoken("<think>no end", False) == ""
    assert spoken("the tag <think> is a tag", False) == "the tag <think> is a tag"


def test_labels_are_short_and_different():
    models = [Model(said, "weights", said) for said in ("a/sft", "a/grpo", "b/sft", "b/sft")]
    server = Model("http://host:1/v1", "server", "http://host:1/v1")
    assert labels([*models, server]) == ["a/sft", "grpo", "b/sft", "b/sft #2", "host:1"]


def test_values_are_checked():
    assert checked("top_p", "0.5") == 0.5
    for name, value in [
        ("top_p", "0"),
        ("max_tokens", "0"),
        ("max_tokens", "1.5"),
        ("seed", "-1"),
        ("temperature", "nan"),
        ("temperature", "2.1"),
    ]:
        with pytest.raises(Mistake):
            checked(name, value)


def own_terminal() -> None:
    """For preexec_fn: Ctrl-C on standard input comes as a signal."""
    heed_ctrl_c()
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def start(
    *argv, begin=heed_ctrl_c, stdin=subprocess.PIPE, stdout=subprocess.PIPE
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.chat", *map(str, argv)], cwd=ROOT, stdin=stdin, stdout=stdout,
        stderr=subprocess.PIPE, text=True, preexec_fn=begin,
    )  # fmt: skip


def test_the_whole_command_on_a_model_of_this_machine(tiny_model):
    lines = "Count the visits.\n/regen\n" + "long " * 3000 + "\n/quit\n"
    process = start(tiny_model, "hw=cpu", "--max-tokens", 5, "--with", tiny_model)
    out, err = process.communicate(lines, timeout=300)
    assert process.returncode == 0, err
    assert out.count("(5 tokens") == 4
    assert out.count("error: the conversation has") == 2
    assert "Traceback" not in err and "leaked" not in err


def read_until(file, text: str) -> str:
    found = ""
    while text not in found:
        piece = file.read(1)
        assert piece, found
        found += piece
    return found


def test_ctrl_c_stops_the_answer_and_then_ends(server):
    server.holds = True
    process = start(server.url, "hw=cpu")
    process.stdin.write("One?\n")
    process.stdin.flush()
    read_until(process.stdout, "One?\nAn ")
    process.send_signal(signal.SIGINT)
    read_until(process.stdout, "(stopped)\n")
    server.holds = False
    process.stdin.write("Two?\n")
    process.stdin.flush()
    read_until(process.stdout, "An answer.")
    assert contents(server.payloads[1]) == [
        ("user", "One?"),
        ("assistant", "An "),
        ("user", "Two?"),
    ]
    read_until(process.stdout, "> ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.slow  # in one of some twenty runs the terminal lost the keys that came while it was being set up
def test_a_terminal():
    """Colours, line editing, Ctrl-C and Ctrl-D of a real one."""
    main_end, other = pty.openpty()
    with ChatServer("<think>hm</think>So\x1b[31m.") as server:
        process = start(server.url, "hw=cpu", begin=own_terminal, stdin=other, stdout=other)
        os.close(other)
        said = b""

        def wait_for(text: bytes) -> bytes:
            nonlocal said
            while text not in said:
                said += os.read(main_end, 4096)
            before, _, said = said.partition(text)
            return before

        wait_for(b"> ")
        os.write(main_end, b"Thrwn away\x03")
        wait_for(b"Ctrl-D or /quit ends")
        wait_for(b"> ")
        os.write(main_end, b"One!\x7f?\n")  # with a correction
        shown = wait_for(b" token, ")
        wait_for(b"> ")
        os.write(main_end, b"\x04")
        _, err = process.communicate(timeout=60)
    os.close(main_end)
    assert (process.returncode, "Traceback" in err) == (0, False)
    assert contents(server.payloads[0]) == [("user", "One?")]
    assert b"\x1b[2m<think>hm</think>\x1b[0m" in shown
    assert "So␛[31m.".encode() in shown
    assert b"\x1b[31m" not in shown
