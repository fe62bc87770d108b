"""The jobs API of a Ray dashboard on the loopback, in a thread: jobs are kept, and not run."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ray


class Jobs:
    """What was submitted, each with a status that a test may change."""

    def __init__(self, version: str | None = ray.__version__):
        self.version, self.jobs, self.address = version, [], ""

    def answer(self, method: str, path: str, body: dict):
        """What the dashboard replies; None: 404."""
        if path == "/api/version" and self.version:
            return {"version": "4", "ray_version": self.version, "ray_commit": ""}
        if path == "/api/jobs/" and method == "POST":
            name = f"raysubmit_{len(self.jobs)}"
            self.jobs.append(
                {"type": "SUBMISSION", "submission_id": name, "status": "RUNNING", **body}
            )
            self.jobs[-1]["submission_id"] = name
            return {"job_id": name, "submission_id": name}
        return self.jobs if path == "/api/jobs/" else None


@contextlib.contextmanager
def serving(jobs: Jobs) -> Iterator[Jobs]:
    class Handler(BaseHTTPRequestHandler):
        def reply(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = jobs.answer(self.command, self.path, json.loads(body or "{}"))
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = reply

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        jobs.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield jobs
        finally:
            server.shutdown()
            thread.join()
