"""A real browser without a screen: Debian's chromium, spoken to by its own debugging protocol."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WAIT_S = 120  # for something to appear: a busy machine is no failure


def found() -> str | None:
    """Where the browser is, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One window. A context manager, which ends the browser."""

    def __init__(self, profile: Path, width: int = 1400, height: int = 900):
        self.numbers = itertools.count(1)
        self.errors: list[str] = []  # exceptions of the page's own scripts
        command = [found(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--remote-debugging-port=0", f"--user-data-dir={profile}",
                   f"--window-size={width},{height}", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        port_file, end = profile / "DevToolsActivePort", time.monotonic() + WAIT_S
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if time.monotonic() > end or self.process.poll() is not None:
                self.process.kill()
                raise RuntimeError("the browser did not start")
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self.ends = contextlib.ExitStack()
        self.socket = self.ends.enter_context(connect(page["webSocketDebuggerUrl"], max_size=None))
        self.call("Runtime.enable")
        self.call("Page.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self.ends.close()
        self.process.terminate()
        self.process.wait(60)

    def call(self, method: str, **params) -> dict:
        """One command of the protocol, and its answer."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=WAIT_S))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"])[:2000])
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def run(self, script: str):
        """The value of a JavaScript expression."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:2000])
        return done["result"].get("value")

    def wait(self, script: str, timeout_s: float = WAIT_S) -> None:
        """Wait until the expression is true (an element is)."""
        end = time.monotonic() + timeout_s
        while not self.run(f"Boolean(document.body && ({script}))"):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {script}; the page says {self.text()[:2000]}")
            time.sleep(0.05)

    def text(self) -> str:
        """What a person can read on the page."""
        return self.run("document.body ? document.body.innerText : ''")

    def picture(self, file: Path) -> None:
        """Save what is in the window."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
