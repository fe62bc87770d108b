"""Hard limits for any reward: a call that exceeds one is stopped, its sample masked, and the run goes on.

    result = await call("my_reward.py", "compute_score", row, {"weight": 0.5})
    equal = await run(compare, (left, right), timeout_s=5)

A call runs in a process of its own, which is killed when the call takes longer than `timeout_s`
(whatever it does: C code, an ignored SIGTERM), gets no more memory than `memory_mib` beyond what the
imports took, and may crash. Then the result is {"score": nan, "acc": nan, "stopped": "timeout" |
"memory" | "crash"}; every other result has "stopped": "no". The next call works, and finds working folder,
signals and output as this one did. `sys.exit()` in a call is a crash. A score of NaN, or one that is infinite, is
{"score": nan}: not graded.
An async function whose module says `LIMITS_ITSELF = True` is awaited in the event loop instead; any
other async function runs in the process, too, in an event loop of its own.
A function that raises has a bug: RewardError tells the row and the function's own traceback.

The processes (`_limits/worker`) are forks of one that has imported the function's module: a new one
is there in milliseconds. They have this process's module path, working folder and environment, and
what they print goes where this process's output goes.
Own code, because threads, signals and func_timeout do not stop a loop in C, and a process for each call
would take fifty times as long as a trivial call does here.
What is sent back is plain: numbers, texts, lists, dicts (tuples become lists, numpy's numbers
Python's). A process makes many calls one after the other, and is replaced when it is stopped: a
function keeps no state that must survive, and leaves none that must not.
Not covered: the import of the module (it is imported here as well); memory of a call's child
processes (each has the same limit for itself; they are killed with it, unless they left its process
group), of shared memory and of a GPU. What reserves address space that it doesn't use (CUDA, node) needs
memory_mib=None.
"""

import asyncio
import contextvars
import inspect
import itertools
import logging
import math
import pickle
from types import ModuleType
from typing import NamedTuple

from preflight.mistakes import Mistake, nearest
from rewards._limits import worker
from rewards._limits.pool import ProcessEnded, Raised, Stopped, pool_of
from rewards._limits.worker import call_reward, called, module_at, trace_of

logger = logging.getLogger(__name__)
STOPS_TOLD = 20  # in the log of a process; all are counted by their metric
SHOWN = 300  # characters of a response


class Limits(NamedTuple):
    """Of a reward."""

    timeout_s: float = 60.0  # a call
    memory_mib: int | None = 4096  # a process; None: no limit
    processes: int = 2  # per calling process
    loop_timeout_s: float | None = None  # a call that stays in the event loop; None: it is trusted
    failed_share: float = (
        0.1  # of a step's answers: the reward raises for more of them, and the run ends
    )


# by rewards that a reward calls
_inherited = contextvars.ContextVar[Limits | None]("limits", default=None)


class RewardError(Raised):
    """A reward raised: the message has the error, its place, the row and the traceback."""

    @property
    def brief(self) -> str:
        """In two lines: the error, and the line of code that raised it."""
        cause = " ".join(self.cause.split())[:SHOWN]
        return f"the reward raised {cause}" + (f"\n    {self.where}" if self.where else "")

    @property
    def told(self) -> str:
        """For a log, when the run goes on: one line, and indented below it the rest."""
        head, *rest = str(self).splitlines()
        return "\n    ".join([f"{type(self).__name__}: {head}", *rest])


def loaded(path: str, name: str) -> ModuleType:
    """The module of a reward's function. Mistake, a line that names the code, if there is none."""
    shown_path = path.removeprefix("file://")
    try:
        module = module_at(path)
    except (Exception, SystemExit) as error:
        _, cause, where = trace_of(error, __file__, worker.__file__)
        line = f"the reward {shown_path} can't be imported: {' '.join(cause.split())}"
        raise Mistake(line + (f" ({where})" if where else "")) from None
    if not callable(getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise Mistake(f"{shown_path} has no function {name!r}.{nearest(name, known)}")
    return module


async def call(
    path: str, name: str, row: tuple, options: dict, limits: Limits | None = None
) -> dict:
    """What a reward says about one row.

    Args:
        path, name: as in verl's custom_reward_function: a file or pkg://module, and the function.
        row: (data_source, solution_str, ground_truth, extra_info).
        options: keyword arguments, the same for all rows.
        limits: by default those of the reward that calls this one.

    A plain number r counts as {"score": r, "acc": r}, as it does in verl.
    Raises RewardError, or ProcessEnded where no process can be started.
    """
    limits = limits or _inherited.get() or Limits()
    module = module_at(path)
    function = getattr(module, name)
    try:
        if getattr(module, "LIMITS_ITSELF", False) or "reward_model_tokenizer" in options:
            result = await _here(function, row, options, limits)
        else:
            shared = pickle.dumps((path, name, options))
            pool = pool_of(limits.processes, limits.memory_mib)
            result = await pool.run(call_reward, (shared, row), limits.timeout_s, shared)
        return {"stopped": "no"} | _scored(result)
    except Stopped as stopped:
        _tell(stopped.reason, row)
        return {"score": math.nan, "acc": math.nan, "stopped": stopped.reason}
    except ProcessEnded:
        raise
    except Raised as error:
        trace, cause, where = str(error), error.cause, error.where or _place_of(function)
    except Exception as error:
        trace, cause, where = trace_of(error, __file__, worker.__file__)
        where = where or _place_of(function)
    # its first lines are what launcher/results.py shows at the end of a run
    head = f"the reward {name} of {path} raised {' '.join(cause.split())[:SHOWN]}"
    at = f"\nat {where}" if where else ""
    raise RewardError(f"{head}{at}\nthe row: {shown(row)}\n{trace}", cause, where)


def _scored(result) -> dict:
    """What a reward returned, as a dict with a score. TypeError if it is neither that nor a number."""
    said = result["score"] if isinstance(result, dict) and "score" in result else result
    try:
        score = float(said)
    except OverflowError:  # a whole number beyond all floats
        score = math.inf
    except (TypeError, ValueError):
        what = f"{type(said).__name__} {_short(said)}" if said is not None else "None"
        what = f"the score is {what}" if said is not result else f"it returned {what}"
        hint = ": is a `return` missing?" if result is None else ""
        raise TypeError(f"{what}, and not a number or {{'score': NUMBER, ...}}{hint}") from None
    result = result if isinstance(result, dict) else {"acc": score}
    if math.isinf(score):
        result = {"error": "the score is infinite"} | result | {"acc": math.nan}
        score = math.nan
    return result | {"score": score}


def _place_of(function) -> str:
    """Where a function is defined, as trace_of says where an error was."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (
        f"{worker.short(code.co_filename)}, line {code.co_firstlineno}, in {code.co_name}"
        if code
        else ""
    )


async def run(
    function, args: tuple, *, timeout_s: float, memory_mib: int | None = None,
    processes: int | None = None,
):  # fmt: skip
    """What a function of an importable module returns (plain data), called in a process with limits.

    Raises Stopped, Raised if the function does, or ProcessEnded where no process can be started.
    """
    module = pickle.dumps((f"pkg://{function.__module__}",))
    pool = pool_of(processes or Limits().processes, memory_mib)
    return await pool.run(function, args, timeout_s, module)


async def _here(function, row: tuple, options: dict, limits: Limits):
    """In this process: for what limits itself, or shares a served model's tokenizer with us."""
    before = _inherited.set(limits)
    try:
        made = _in_loop(function, row, options)
        if limits.loop_timeout_s is None:
            return await made
        task = asyncio.ensure_future(made)
        try:
            await asyncio.wait([task], timeout=limits.loop_timeout_s)
            if not task.done():
                raise Stopped("timeout")
            return task.result()
        finally:
            task.cancel()
    finally:
        _inherited.reset(before)


async def _in_loop(function, row: tuple, options: dict):
    """Awaited here, or in a thread where it doesn't await itself."""
    try:
        if inspect.iscoroutinefunction(function):
            return await called(function, row, options)
        return await asyncio.to_thread(called, function, row, options)
    except SystemExit:  # else it would end the event loop
        raise Stopped("crash") from None


def shown(row: tuple) -> str:
    """A row, for a person who looks for it."""
    source, response, reference, info = row
    index = info.get("index") if isinstance(info, dict) else None
    return (
        f"data_source={str(source)!r}, index={index!r}, response={_short(response)},"
        f" ground_truth={_short(reference)}"
    )


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


_stops = itertools.count(1)


def _tell(reason: str, row: tuple) -> None:
    if (number := next(_stops)) <= STOPS_TOLD:  # as errors: vLLM silences all warnings
        logger.error("a reward was stopped (%s), at %s", reason, shown(row))
    if number == STOPS_TOLD:
        logger.error("stops of rewards are no longer told one by one")
