"""Hard limits: whatever a reward does, its call ends in time, the next one works, and nothing stays."""

import asyncio
import math
import operator
import os
import pickle
import re
import subprocess
import sys
import time

import psutil
import pytest
from helpers import ROOT
from sql_helpers import alive

from preflight.mistakes import Mistake
from rewards._limits.calls import Limits, RewardError, call, loaded, run
from rewards._limits.pool import ProcessEnded, Raised, Stopped, pool_of

MEMORY_MIB = 128
ROOMY = Limits(memory_mib=MEMORY_MIB)
TIGHT = ROOMY._replace(timeout_s=0.3)
REWARD = r"""
import asyncio, ctypes, os, re, signal, subprocess, sys, time

def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, scale=1.0):
    exec(solution_str)
    return scale

def says(data_source, solution_str, ground_truth, extra_info=None):
    return eval(solution_str)

def length(data_source, solution_str, ground_truth, extra_info=None):
    return len(solution_str)

async def slowly(data_source, solution_str, ground_truth, extra_info=None):
    await asyncio.sleep(float(solution_str))
    return {"score": 1.0, "pid": os.getpid()}

def with_model(data_source, solution_str, ground_truth, extra_info=None, *,
               reward_router_address, reward_model_tokenizer):
    return {"score": 1.0, "pid": os.getpid(), "said": reward_model_tokenizer(reward_router_address)}
"""


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    """The path of a reward that does what the response says."""
    path = tmp_path_factory.mktemp("limits") / "does.py"
    path.write_text(REWARD)
    return str(path)


def row(response, index=3):
    return "source", response, "reference", {"index": index}


def score(path, response, limits=ROOMY, name="compute_score", **options) -> dict:
    return asyncio.run(call(str(path), name, row(response), options, limits))


HOSTILE = {
    "sleeps for ever": ("time.sleep(1000)", "timeout"),
    "burns a core in C": ("re.match('(a+)+$', 'a' * 60 + 'b')", "timeout"),
    "ignores SIGTERM": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "timeout",
    ),
    "catches everything": (
        "while True:\n    try: time.sleep(1)\n    except BaseException: pass",
        "timeout",
    ),
    "stops its process": ("os.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
    "eats memory": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "memory"),
    "asks for too much at once": ("import numpy; numpy.empty(1 << 40)", "memory"),
    "kills its process": ("os.kill(os.getpid(), signal.SIGKILL)", "crash"),
    "ends its process": ("os._exit(0)", "crash"),
    "breaks the interpreter": ("ctypes.string_at(0)", "crash"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_stopped_and_the_next_call_works(reward, what):
    does, reason = HOSTILE[what]
    start = time.monotonic()
    result = score(reward, does, TIGHT if reason == "timeout" else ROOMY)
    assert time.monotonic() - start < 30
    assert result["stopped"] == reason
    assert math.isnan(result["score"]) and math.isnan(result["acc"])
    assert score(reward, "", scale=2.0) == {"score": 2.0, "acc": 2.0, "stopped": "no"}


def test_calls_beside_it_are_not_affected(reward):
    async def all_of_them():
        bad = [does for does, _ in HOSTILE.values()]
        calls = [call(reward, "compute_score", row(does), {}, TIGHT) for does in bad]
        good = [call(reward, "says", row(str(i)), {}, ROOMY) for i in range(300)]
        return await asyncio.gather(*calls, *good)

    results = asyncio.run(all_of_them())
    # with so little time, memory may not be eaten up
    assert all(result["stopped"] != "no" for result in results[: len(HOSTILE)])
    assert [result["score"] for result in results[len(HOSTILE) :]] == list(range(300))


def test_what_a_stopped_call_has_started_ends_with_it(reward, tmp_path):
    file = tmp_path / "pid"
    does = f"c = subprocess.Popen(['sleep', '500']); open({str(file)!r}, 'w').write(str(c.pid)); c.wait()"
    assert score(reward, does, ROOMY._replace(timeout_s=2.0))["stopped"] == "timeout"
    assert gone([int(file.read_text())])


def gone(pids: list[int], within_s: float = 20.0) -> bool:
    """Whether the processes end soon."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    return False


def test_a_reward_that_raises_is_told_with_its_row(reward):
    response = "x = 1\nraise KeyError('nothing' + ' here')" + " " * 1000
    with pytest.raises(RewardError) as caught:
        score(reward, response)
    message = str(caught.value)
    first, place, row, trace = message.split("\n", 3)
    assert first == f"the reward compute_score of {reward} raised KeyError: 'nothing here'"
    assert place == f"at {caught.value.where}"
    assert all(part in row for part in ("the row: ", "source", "index=3", "x = 1", "'reference'"))
    assert len(row) < 800  # of a long response, the beginning
    assert trace.startswith("Traceback") and trace.endswith("KeyError: 'nothing here'")
    assert "exec(solution_str)" in trace and "_limits" not in trace  # its own lines alone
    assert caught.value.cause == "KeyError: 'nothing here'"
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # Ray sends it


@pytest.mark.parametrize("leaves", ["raise SystemExit(3)", "exit()", "raise KeyboardInterrupt"])
def test_code_that_ends_its_process_is_a_crash_of_its_sample(reward, leaves):
    result = score(reward, leaves)
    assert math.isnan(result["score"]) and result["stopped"] == "crash"
    assert score(reward, "pass")["score"] == 1.0


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_reward_that_limits_itself_and_exits_is_a_crash_too(tmp_path, kind):
    """It runs in this process, whose event loop must go on."""
    path = tmp_path / "own.py"
    path.write_text(
        f"LIMITS_ITSELF = True\n{kind} score(data_source, solution_str, ground_truth, extra_info):\n"
        "    raise SystemExit(solution_str)\n"
    )
    for limits in (ROOMY, ROOMY._replace(loop_timeout_s=5.0)):
        assert score(str(path), "3", limits, name="score")["stopped"] == "crash"


LEAKS = {
    "a closed output": ("sys.stdout.close(); os.close(2)", "print('here'); print('there', file=sys.stderr)"),
    "no output": ("sys.stdout = None", "print(sys.stdout.fileno())"),
    "an output elsewhere": ("os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
                            "assert os.fstat(1) != os.stat(os.devnull)"),
    "a signal handler": ("signal.signal(signal.SIGUSR1, lambda *_: 1 / 0)",
                         "assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL"),
    "an alarm": ("signal.alarm(1)", "time.sleep(1.5)"),
    "a blocked signal": ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
                         "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])"),
    "a working folder": ("os.chdir('/')", "assert os.getcwd() != '/'"),
    "a folder that is gone": ("import tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
                              "assert os.path.isdir(os.getcwd())"),
    "a thread": ("import threading; threading.Thread(target=time.sleep, args=(500,), daemon=True).start()",
                 "import threading; assert threading.active_count() == 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", LEAKS)
def test_what_a_call_changes_is_put_back_for_the_next(reward, what):
    first, then = LEAKS[what]
    one = ROOMY._replace(processes=1)
    assert score(reward, first, one)["stopped"] == "no"
    assert score(reward, then, one) == {"score": 1.0, "acc": 1.0, "stopped": "no"}


@pytest.mark.parametrize(
    "said", ["float('inf')", "-float('inf')", "10**400", "{'score': float('inf'), 'acc': 1}"]
)
def test_an_infinite_score_is_not_graded(reward, said):
    result = score(reward, said, name="says")
    assert math.isnan(result["score"]) and math.isnan(result["acc"])
    assert result["error"] == "the score is infinite" and result["stopped"] == "no"


def test_what_comes_back(reward):
    def says(text):
        return score(reward, text, name="says")

    assert says("True") == {"score": 1.0, "acc": 1.0, "stopped": "no"}
    numbers = "__import__('numpy').float32(0.5)"
    steps = "'steps': [(0, 2, 0.25)], 'text': '\\ud800'"
    result = says(f"{{'score': {numbers}, {steps}, 'nan': float('nan')}}")
    assert math.isnan(result.pop("nan"))
    assert result == {"score": 0.5, "steps": [[0, 2, 0.25]], "text": "\ud800", "stopped": "no"}
    assert says("{'score': 1, 'stopped': 'timeout'}")["stopped"] == "timeout"  # passed on
    for wrong, why in {
        "None": "it returned None, and not a number or .*: is a `return` missing",
        "{'acc': 1}": "it returned dict {'acc': 1}, and not a number",
        "{'score': None}": "the score is None, and not a number",
        "{'score': [1]}": "the score is list \\[1\\], and not a number",
        "'good'": "it returned str 'good', and not a number",
        "{'score': object()}": "object",
    }.items():
        with pytest.raises(RewardError, match=why) as caught:
            says(wrong)
        assert re.search(r"does\.py, line \d+, in says$", caught.value.where)


def test_where_a_reward_raised(reward, tmp_path):
    """In the user's own code, whatever library it was in."""
    with pytest.raises(RewardError) as caught:
        score(reward, "import json\njson.loads('{')")
    assert caught.value.where.endswith("in compute_score: exec(solution_str)")
    assert "json/decoder.py" in str(caught.value)
    lines = caught.value.brief.splitlines()
    assert lines[0].startswith("the reward raised JSONDecodeError: Expecting property name")
    assert lines[1] == f"    {caught.value.where}" and len(lines) == 2


@pytest.mark.parametrize(
    ("text", "cause", "where"),
    [
        ("import os\nimport nosuch_lib\n", "ModuleNotFoundError: No module named 'nosuch_lib'",
         "line 2, in <module>: import nosuch_lib"),
        ("def f(:\n", "SyntaxError: invalid syntax", "line 1: def f(:"),
        ("raise SystemExit(3)", "SystemExit: 3", "line 1, in <module>: raise SystemExit(3)"),
        ("def compute_scor(): 0", "has no function 'compute_score'. Did you mean compute_scor?", ""),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_imported(tmp_path, text, cause, where):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(Mistake) as caught:
        loaded(str(file), "compute_score")
    line = str(caught.value)
    assert str(file) in line and cause in line and "\n" not in line
    assert line.endswith(f"mine.py, {where})") or not where


def test_large_and_odd_texts(reward):
    for text in ("x" * 3_000_000, "\ud800\0\u2028", ""):
        assert score(reward, text, name="length")["score"] == len(text)


def test_a_thread_that_a_call_leaves_costs_other_calls_nothing(reward):
    leaves = (
        "import threading\ndef burn(): time.sleep(0.2); re.match('(a+)+$', 'a' * 60 + 'b')\n"
        "def start(): threading.Thread(target=burn, daemon=True).start()\n"
        "globals().update(locals())\nstart()"
    )
    limits = Limits(timeout_s=5, memory_mib=MEMORY_MIB, processes=1)
    assert score(reward, leaves, limits)["stopped"] == "no"
    time.sleep(0.4)
    assert score(reward, "", limits)["stopped"] == "no"


def test_async_rewards(reward, tmp_path):
    assert score(reward, "0", name="slowly")["pid"] != os.getpid()
    assert score(reward, "100", TIGHT, name="slowly")["stopped"] == "timeout"
    trusted = tmp_path / "trusted.py"
    trusted.write_text(REWARD + "LIMITS_ITSELF = True\n")
    assert score(trusted, "0", TIGHT, name="slowly")["pid"] == os.getpid()  # awaited here
    assert score(trusted, "0.5", TIGHT, name="slowly")["stopped"] == "no"  # it is trusted
    limits = TIGHT._replace(loop_timeout_s=0.1)
    assert score(trusted, "100", limits, name="slowly")["stopped"] == "timeout"
    with pytest.raises(RewardError, match="could not convert string") as caught:
        score(trusted, "much", name="slowly")
    assert "_limits" not in str(caught.value)


@pytest.mark.parametrize("where", ["", "LIMITS_ITSELF = True\n"])
@pytest.mark.parametrize("sync", ["", "async "])
def test_a_row_comes_by_name_as_from_verl(tmp_path, where, sync):
    named = tmp_path / "named.py"
    named.write_text(
        f"{where}{sync}def swapped(extra_info, solution_str, *, weight, ground_truth, data_source):\n"
        "    return {'score': weight, 'seen': [data_source, solution_str, ground_truth, extra_info]}\n"
        f"{sync}def any_of_them(**row):\n    return {{'score': 1.0, 'seen': row}}\n"
    )
    assert score(named, "text", name="swapped", weight=0.5)["seen"] == list(row("text"))
    names = ["data_source", "solution_str", "ground_truth", "extra_info"]  # naive.py:67
    seen = score(named, "text", name="any_of_them", weight=0.5)["seen"]
    assert seen == dict(zip(names, row("text"), strict=True)) | {"weight": 0.5}


def test_what_shares_a_served_model_stays_here(reward):
    served = {"reward_router_address": "host:1", "reward_model_tokenizer": lambda text: text[:4]}
    result = score(reward, "", name="with_model", **served)
    assert (result["pid"], result["said"]) == (os.getpid(), "host")


def test_a_reward_calls_another_with_its_own_limits(reward, tmp_path):
    outer = tmp_path / "outer.py"
    outer.write_text(
        "from rewards._limits.calls import call\nLIMITS_ITSELF = True\n"
        "async def compute_score(inner, **row):\n"
        "    return await call(inner, 'compute_score', tuple(row.values()), {})\n"
    )
    assert score(outer, "time.sleep(1000)", TIGHT, inner=reward)["stopped"] == "timeout"


def test_a_busy_loop_makes_no_call_late(reward):
    """The clock is looked at in another process: what was answered in time counts."""

    async def busy():
        await call(reward, "says", row("1"), {}, ROOMY)
        limits = ROOMY._replace(timeout_s=1.5)
        asked = [
            asyncio.ensure_future(
                call(reward, "compute_score", row("time.sleep(0.05)"), {}, limits)
            )
            for _ in range(4)
        ]
        await asyncio.sleep(0)
        time.sleep(2.0)
        return await asyncio.gather(*asked)

    assert {result["stopped"] for result in asyncio.run(busy())} == {"no"}


def test_a_new_event_loop_goes_on_with_the_same_process(reward):
    async def process():
        await call(reward, "says", row("1"), {}, ROOMY)
        return pool_of(ROOMY.processes, ROOMY.memory_mib).process.pid

    async def leave_one_running():
        asked = asyncio.ensure_future(
            call(reward, "compute_score", row("time.sleep(99)"), {}, ROOMY)
        )
        await asyncio.wait([asked], timeout=0.2)
        return await process()

    first = asyncio.run(process())
    assert asyncio.run(process()) == first
    assert asyncio.run(leave_one_running()) == first
    assert asyncio.run(process()) != first  # nobody waits for that call
    assert gone([first])


def test_a_process_that_somebody_kills_is_replaced(reward):
    async def killed():
        pool = pool_of(ROOMY.processes, ROOMY.memory_mib)
        await call(reward, "says", row("1"), {}, ROOMY)
        asked = [call(reward, "compute_score", row("time.sleep(0.3)"), {}, ROOMY) for _ in range(4)]
        asked = asyncio.gather(*asked)
        await asyncio.sleep(0.1)
        pool.process.kill()
        return await asked

    assert [result["score"] for result in asyncio.run(killed())] == [1.0] * 4


def test_a_module_that_ends_the_process_is_told(tmp_path):
    ends = tmp_path / "ends.py"
    ends.write_text(
        "import os, sys\nif 'pytest' not in sys.modules: os._exit(7)\n"
        "def compute_score(**row): return 1.0\n"
    )
    with pytest.raises(ProcessEnded, match="status 7"):
        score(ends, "", Limits(memory_mib=MEMORY_MIB, processes=1))


def test_run_calls_any_function():
    async def runs():
        assert await run(operator.add, (2, 3), timeout_s=60) == 5
        with pytest.raises(Stopped) as stopped:
            await run(time.sleep, (1000,), timeout_s=0.2)
        assert stopped.value.reason == "timeout"
        with pytest.raises(Stopped, match="memory"):
            await run(bytearray, (1 << 40,), timeout_s=60, memory_mib=MEMORY_MIB)
        with pytest.raises(Raised, match="ZeroDivisionError"):
            await run(operator.truediv, (1, 0), timeout_s=60)

    asyncio.run(runs())


SCRIPT = """
import asyncio, os, sys, threading
from rewards._limits.calls import call
print("main", flush=True)
threading.Thread(target=threading.Event().wait, daemon=True).start()
path, response = sys.argv[1:]
async def asks():
    tasks = [asyncio.ensure_future(call(path, "compute_score", ("", response, "", {}), {})) for _ in range(2)]
    return await asyncio.gather(*tasks)
if os.fork() == 0:  # as Ray's workers are forked
    print(asyncio.run(asks()), flush=True)
    sys.exit()
print(asyncio.run(asks()), flush=True)
os.wait()
"""


def start_script(reward, response):
    """A program without `if __name__ == "__main__"`, with threads and a fork."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, reward, response]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_the_program_is_not_run_again_and_forks_have_their_own(reward):
    process = start_script(reward, r"print('hello \\ud800')")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert output.count("main") == 1
    assert output.count(r"hello \ud800") == 4  # what a reward prints is seen
    assert output.count("'stopped': 'no'") == 4


def test_nothing_outlives_a_killed_program(reward):
    process = start_script(reward, "print('up', flush=True); time.sleep(1000)")
    for _ in range(5):  # main, and four calls
        process.stdout.readline()
    program = psutil.Process(process.pid)
    family = program.children(recursive=True)
    assert len(family) == 1 + 2 * (1 + 2)  # the fork; for both a process with two runners
    command = program.cmdline()
    for member in [member for member in [program, *family] if member.cmdline() == command]:
        member.kill()
    process.wait()
    assert gone([member.pid for member in family])
    process.stdout.close()
