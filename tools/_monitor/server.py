"""The server of the monitor: the page, and what it asks for as JSON. It only reads.

A run is looked up by its name among those that were found, and a step is a number: no part of an address
ever becomes a path.
"""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tools._monitor import answers, compare
from tools._monitor.machine import Machine
from tools._monitor.metrics import curve, sections
from tools._monitor.runs import Gone, Runs

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
POINTS = 500  # of a curve
AT_ONCE = 200  # groups or prompts of an answer, at most
SAFE = {  # the page loads nothing but its own files, and runs no script that an answer could bring
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Wrong(Exception):
    """An address that makes no sense."""


def whole(request: Request, name: str, default: int | None = None) -> int:
    """A number of the address, not negative."""
    value = request.query_params.get(name, default)
    if isinstance(value, str) and (len(value) > 12 or not (value.isascii() and value.isdigit())):
        raise Wrong(f"{name} is a whole number")
    if value is None:
        raise Wrong(f"{name} is missing")
    return int(value)


def json_of(content: object, status: int = 200) -> Response:
    """An answer in JSON."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, SAFE, media_type="application/json")


def guarded(handler: Callable[[Request], object]) -> Callable:
    """What is gone is 404 and what makes no sense 400, each with a line."""

    @functools.wraps(handler)
    def answer(request: Request) -> Response:
        try:
            return json_of(handler(request))
        except (Gone, FileNotFoundError) as error:
            return json_of({"error": str(error)}, 404)
        except Wrong as error:
            return json_of({"error": str(error)}, 400)

    return answer


class Monitor:
    """What the addresses answer."""

    def __init__(self, runs: Runs, machine: Machine):
        self.runs, self.machine, self.files = runs, machine, answers.Files()

    def overview(self, request: Request) -> object:
        """/api/runs: all runs, in short, newest first, and the machine."""
        now = time.time()
        self.machine.look()
        with self.runs.lock:
            found = [run.summary(now) for run in self.runs.runs.values()]
        found.sort(key=lambda run: (run["start"] or "", run["id"]), reverse=True)
        return {
            "folders": self.runs.said,
            "looked": self.runs.looked,
            "now": now,
            "runs": found,
            "machine": self.machine.summary(),
        }

    def curves(self, request: Request) -> object:
        """/api/curves?run=A&run=B&section=Main&section=...: the names of all sections, and the curves of some."""
        wanted = request.query_params.getlist("section")
        with self.runs.lock:
            chosen = [self.runs.runs[n] for n in self.names(request) if n in self.runs.runs]
            names = {name for run in chosen for name in run.metrics.columns}
            made = []
            for title, members in sections(names):
                charts = [
                    {
                        "name": name,
                        "series": [
                            {"run": run.name, **curve(run.metrics.series(name), POINTS)}
                            for run in chosen
                            if name in run.metrics.columns
                        ],
                    }
                    for name in (members if title in wanted else ())
                ]
                made.append({"title": title, "count": len(members), "charts": charts})
            return {"versions": {run.name: run.version for run in chosen}, "sections": made}

    def names(self, request: Request) -> list[str]:
        return list(dict.fromkeys(request.query_params.getlist("run")))

    def differences(self, request: Request) -> object:
        """/api/compare?run=A&run=B: where their configs differ, their figures side by side."""
        with self.runs.lock:
            return compare.side_by_side([self.runs.get(name) for name in self.names(request)])

    def steps(self, request: Request) -> object:
        """/api/steps?run=A: which steps have answers."""
        with self.runs.lock:
            run = self.runs.get(request.query_params.get("run", ""))
            return {**run.steps, "estimator": run.get("algorithm.adv_estimator")}

    def answers(self, request: Request) -> object:
        """/api/answers?run=A&kind=rollouts&step=3&order=file&words=&begin=0&count=20: groups of answers."""
        kind, order = self.kind(request), request.query_params.get("order", "file")
        if order not in answers.ORDERS:
            raise Wrong(f"order is one of {', '.join(answers.ORDERS)}")
        run = self.runs.get(request.query_params.get("run", ""))
        file = run.file(kind, f"{whole(request, 'step')}.jsonl")
        begin, count = whole(request, "begin", 0), min(whole(request, "count", 20), AT_ONCE)
        words = request.query_params.get("words", "")[:200]
        by_std = bool(run.get("algorithm.norm_adv_by_std_in_grpo", True))
        page = answers.page_of(self.files.rows(file), by_std, order, words, begin, count)
        return {**page, "by_std": by_std}

    def kind(self, request: Request) -> str:
        kind = request.query_params.get("kind", "rollouts")
        if kind not in ("rollouts", "validation"):
            raise Wrong("kind is rollouts or validation")
        return kind

    def validations(self, request: Request) -> dict[int, list[dict]]:
        run = self.runs.get(request.query_params.get("run", ""))
        found = {}
        for step in thinned_steps(run.steps["validation"]):
            found[step] = self.files.rows(run.file("validation", f"{step}.jsonl"))
        return found

    def prompts(self, request: Request) -> object:
        """/api/prompts?run=A: the score of each prompt at each validation."""
        begin, count = whole(request, "begin", 0), min(whole(request, "count", 50), AT_ONCE)
        return answers.matrix(self.validations(request), begin, count)

    def prompt(self, request: Request) -> object:
        """/api/prompt?run=A&id=P: the answers to one prompt at each validation."""
        name = request.query_params.get("id", "")
        found = answers.history(self.validations(request), name)
        if not found:
            raise Gone(f"no validation has a prompt {name[:20]}")
        return {"steps": found}


def thinned_steps(steps: list[int]) -> list[int]:
    """At most so many validations as are kept in memory: first, last, and evenly between."""
    most = answers.KEPT_FILES
    if len(steps) <= most:
        return steps
    return [steps[i * (len(steps) - 1) // (most - 1)] for i in range(most)]


def page(request: Request) -> Response:
    """The page's own files, by name from a fixed list."""
    name = request.path_params.get("name") or "index.html"
    files = {file.name: file for file in PAGE.iterdir() if file.suffix in TYPES}
    if name not in files:
        return json_of({"error": "no such page"}, 404)
    return FileResponse(files[name], headers=SAFE, media_type=TYPES[files[name].suffix])


def application(runs: Runs, hosts: list[str]) -> Starlette:
    """The server.

    Args:
        hosts: names by which it may be called. Others are refused, or a page of the web could read it through a
            name of its own that it lets point here.
    """
    monitor = Monitor(runs, Machine())
    api = {
        "runs": monitor.overview, "curves": monitor.curves, "compare": monitor.differences, "steps": monitor.steps,
        "answers": monitor.answers, "prompts": monitor.prompts, "prompt": monitor.prompt,
    }  # fmt: skip
    routes = [Route(f"/api/{name}", guarded(handler)) for name, handler in api.items()]
    routes += [Route("/", page), Route("/{name}", page)]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
        Middleware(GZipMiddleware, minimum_size=4096, compresslevel=1),
    ]
    return Starlette(routes=routes, middleware=middleware)
