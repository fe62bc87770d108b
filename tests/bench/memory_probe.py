"""What each phase of a run takes on its GPU, as a module of VERL_USE_EXTERNAL_MODULES: a line of JSON a phase, in
the file that LAB_MEMORY_PROBE names, {"phase", "begin", "end": seconds since 1970, "pid", "allocated", "reserved"}:
the last two are the peaks of torch's allocator. For tests/bench/bench_gpu.py.
"""

import contextlib
import functools
import inspect
import json
import os
import time

import wrapt

PHASES = {
    "ActorRolloutRefWorker": {
        "compute_log_prob": "log-probs",
        "compute_ref_log_prob": "reference",
        "update_actor": "update",
        "update_weights": "weight sync",
    },
    "TrainingWorker": {"infer_batch": "values", "train_mini_batch": "critic update"},
}
inside: list[str] = []


def write(name: str, begin: float, **more) -> None:
    """A line of the file."""
    line = {"phase": name, "begin": begin, "pid": os.getpid()} | more
    with open(os.environ["LAB_MEMORY_PROBE"], "a") as file:
        file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def phase(name: str):
    """Note what happens inside, unless a phase that is going on has called it."""
    import torch

    if inside:
        yield
        return
    inside.append(name)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin = time.time()
    try:
        yield
    finally:
        torch.cuda.synchronize()
        inside.clear()
        peaks = {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
        }
        write(name, begin, end=time.time(), **peaks)


def noted(name: str, function):
    """The function, as that phase."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            with phase(name):
                return await function(*args, **kwargs)

        return wrapper

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with phase(name):
            return function(*args, **kwargs)

    return wrapper


@wrapt.when_imported("verl.workers.engine_workers")
def note(module) -> None:
    """Wrap the methods of both workers."""
    for worker, methods in PHASES.items():
        one = getattr(module, worker)
        for method, name in methods.items():
            setattr(one, method, noted(name, getattr(one, method)))


@wrapt.when_imported("verl.workers.rollout.vllm_rollout.vllm_rollout")
def note_cache(module) -> None:
    """Note when vLLM wakes, in two steps: new weights can come; it gets its cache back, and a rollout begins."""
    resume = module.ServerAdapter.resume

    @functools.wraps(resume)
    async def wrapper(self, tags):
        write("cache" if "kv_cache" in tags else "wake", time.time())
        return await resume(self, tags)

    module.ServerAdapter.resume = wrapper
