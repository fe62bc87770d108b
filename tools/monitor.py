"""A page that follows runs while they train, and shows those that have ended.

    python -m tools.monitor                     all runs of outputs/ and multirun/, on http://127.0.0.1:7860
    python -m tools.monitor outputs/grpo        one run, or all below a folder
    make monitor ARGS="--port 8000"

Curves, several runs side by side, answers by group, the same prompt over the steps, the GPUs or the CPU, and what
looks wrong. It reads the runs' folders, whatever logger they have, and writes nothing. Ctrl-C ends it.
"""

import argparse
import contextlib
import socket
import sys
import threading
from pathlib import Path

from preflight.mistakes import Mistake
from tools import Parser, guarded

DEFAULT = ("outputs", "multirun")
PORT = 7860
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def roots(folder: Path | None) -> dict[str, Path]:
    """The folders to look into, by the name that begins the names of their runs."""
    if folder is None:
        found = {name: Path(name) for name in DEFAULT if Path(name).is_dir()}
        if not found:
            raise Mistake(f"neither {' nor '.join(DEFAULT)} is in {Path.cwd()}: go to where the runs are made, or say a"
                          " folder: python -m tools.monitor FOLDER")  # fmt: skip
        return found
    if not folder.is_dir():
        what = "is a file: give the folder of a run" if folder.exists() else "does not exist"
        raise Mistake(
            f"{folder} {what}. python -m tools.monitor takes a run's folder, or one with runs below it"
        )
    return {"": folder}


def listening(host: str, port: int) -> socket.socket:
    """A socket on that port. Raises Mistake if it can't be had."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen()
    except (OSError, OverflowError) as error:
        made.close()
        if isinstance(error, OverflowError):
            raise Mistake(f"--port {port}: a number from 0 to 65535 is needed") from None
        why = error.strerror or error
        raise Mistake(f"port {port} of {host} can't be had: {why}. Is a monitor running already? Another port:"
                      f" --port {port + 1 if port < 65535 else PORT}") from None  # fmt: skip
    return made


def serve(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    found = roots(args.folder)
    server_socket = listening(args.host, args.port)
    import uvicorn  # here: half a second, and a mistake is told at once

    from tools._monitor.runs import Runs
    from tools._monitor.server import application

    runs = Runs(found)
    runs.scan()
    where = ", ".join(map(str, found.values()))
    port = server_socket.getsockname()[1]
    local = args.host in LOOPBACK
    name = f"[{args.host}]" if ":" in args.host else args.host
    count = len(runs.runs)
    if count:
        print(f"{count} run{'s' if count > 1 else ''} in {where}")
    else:
        print(
            f"no run in {where} yet: they appear as soon as one is started (python launch.py ...)"
        )
    if not local:
        print(
            "whoever reaches this port can read prompts and answers of these runs: there is no password"
        )
    print(f"http://{name}:{port}   Ctrl-C ends it", flush=True)
    hosts = [*LOOPBACK, "[::1]"] if local else ["*"]
    config = uvicorn.Config(application(runs, hosts), log_level="warning", access_log=False, lifespan="off",
                            timeout_graceful_shutdown=1)  # fmt: skip
    follower = threading.Thread(target=runs.follow, daemon=True)
    follower.start()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[server_socket])
    runs.ends.set()
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m tools.monitor", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="of a run, or of many (outputs/ and multirun/)"
    )
    parser.add_argument("--port", type=int, default=PORT, help="%(default)s; 0: any that is free")
    parser.add_argument("--host", default="127.0.0.1",
                        help="%(default)s: this machine only; 0.0.0.0: all networks, without a password")  # fmt: skip
    args = parser.parse_args(argv)
    return guarded(lambda: serve(args))


if __name__ == "__main__":
    sys.exit(main())
