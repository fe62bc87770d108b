"""How fast tools.monitor opens: ten runs of 1,000 steps and 100,000 answers, in a real browser.

python tests/bench/bench_monitor.py
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chromium
import psutil
from monitor_runs import make_run

from preflight.names import ROOT

RUNS, STEPS, GROUPS, SAMPLES = 10, 1000, 2, 5  # 10 answers a step
HEAD = ["", "seconds"]
WANTED_S = 3
# every run is drawn to its end, in each of these
DRAWN = "document.querySelectorAll('.chart canvas').length > 10 && " + " && ".join(
    f"""document.querySelector('[data-name="{name}"][data-runs="{RUNS}"][data-step="{STEPS}"]')"""
    for name in ("critic/score/mean", "actor/entropy", "val-core/sql_demo/acc/mean@1", "reward/acc")
)


def timed(act, browser: "chromium.Browser", ready: str) -> str:
    """Seconds from the act until the page is ready."""
    start = time.perf_counter()
    act()
    browser.wait(ready)
    return f"{time.perf_counter() - start:.2f}"


def rows() -> list[list[str]]:
    """What a person waits for, and the seconds of it."""
    if not chromium.found():
        return [["no chromium: apt-get install chromium", "-"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(RUNS):
            make_run(folder / f"outputs/run{i}", STEPS, GROUPS, SAMPLES, seed=i, test_freq=50)
        with chromium.Browser(folder / "profile") as browser:
            return measured(folder, browser)


def measured(folder: Path, browser: "chromium.Browser") -> list[list[str]]:
    """The server is started, and the page opened and used."""
    command = [sys.executable, "-m", "tools.monitor", folder / "outputs", "--port", "0"]
    begin = time.perf_counter()
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        said = iter(server.stdout.readline, "")
        url = next(found[0] for line in said if (found := re.search(r"http://\S+", line)))
        answers = time.perf_counter() - begin
        browser.open(f"{url}/#view=curves")
        browser.wait(DRAWN)
        opened = time.perf_counter() - begin
        again = timed(lambda: browser.call("Page.reload"), browser, DRAWN)

        def click(view: str):
            return lambda: browser.run(f"document.querySelector('[data-view={view}]').click()")

        answer = timed(click("answers"), browser, "document.querySelectorAll('.group').length == 2")
        table = timed(
            click("validation"), browser, "document.querySelector('#validation tr.click')"
        )
        compare = timed(click("compare"), browser, "document.querySelector('#differences')")
        curves = timed(click("curves"), browser, DRAWN)
        memory = psutil.Process(server.pid).memory_info().rss / 2**20
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    return [
        ["from the command until it prints its address", f"{answers:.2f}"],
        [f"from the command until all curves of {RUNS} runs are drawn (wanted: {WANTED_S})", f"{opened:.2f}"],
        ["the page loaded again", again],
        ["a step's answers", answer],
        ["the prompts over 21 validations", table],
        ["configs side by side", compare],
        ["back to the curves", curves],
        ["memory of the server, MiB", f"{memory:.0f}"],
    ]  # fmt: skip


if __name__ == "__main__":
    from bench import show

    show(
        f"tools.monitor, {RUNS} runs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        HEAD,
        rows(),
    )
