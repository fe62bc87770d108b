"""The little that W&B's own client asks of its server to start a run and to send metrics."""

import gzip
import http.server
import json
import threading

BUCKET = {
    "id": "bucket", "name": "run1", "displayName": "run", "config": "{}", "sweepName": None, "historyLineCount": 0,
    "project": {"id": "project", "name": "project", "entity": {"id": "entity", "name": "me"}},
}  # fmt: skip
VIEWER = {
    "id": "me",
    "username": "me",
    "email": "me@localhost",
    "entity": "me",
    "flags": "{}",
    "teams": {"edges": []},
}
ANSWERS = {
    "viewer": VIEWER,
    "serverInfo": {"features": []},
    "upsertBucket": {"bucket": BUCKET, "inserted": True},
    "createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": []},
    "model": None,
    "project": None,
    "entity": None,
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every query with all that it knows."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        if self.server.gone:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        streams = not self.path.endswith("graphql")
        if streams:
            self.server.sent.append(body.decode())
        answer = json.dumps({"exitcode": None} if streams else {"data": ANSWERS}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """On a free port, until `go_away`; `sent`: what a run has sent of its metrics."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent: list[str] = []
        self.gone = False
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def go_away(self) -> None:
        """Answer nobody any more."""
        self.gone = True  # connections that are open, too
        self.shutdown()
        self.server_close()
