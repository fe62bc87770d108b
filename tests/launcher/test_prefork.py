"""The fork server: what comes out of it behaves as `python` does."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from launcher import prefork

FILES = 64


def few_files() -> None:
    """For preexec_fn: the server has to do with a small limit of open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


@pytest.fixture
def server(tmp_path):
    path = tmp_path / "s"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, prefork.__file__, "serve", str(path), "json", "decimal", "algos"],
            preexec_fn=few_files, stdout=log,
        )  # fmt: skip
    shim = Path(f"{path}.python")
    for _ in range(200):
        if shim.exists() and path.exists():
            break
        time.sleep(0.02)
    yield process, shim, {**os.environ, prefork.SOCKET_ENV: str(path)}
    process.kill()
    process.wait()


def run(server, *args, **options):
    _, shim, env = server
    env = {**env, **options.pop("env", {})}
    return subprocess.run(
        [shim, *map(str, args)], env=env, capture_output=True, text=True, timeout=30, **options
    )


def test_it_has_the_imports_already(server):
    code = "import sys; print('decimal' in sys.modules, 'fractions' in sys.modules)"
    assert run(server, "-c", code).stdout.split() == ["True", "False"]


def test_arguments_environment_folder_and_input(server, tmp_path):
    code = "import os, sys; print(sys.argv[1:], os.environ['X'], os.getcwd(), sys.stdin.read())"
    done = run(server, "-W", "ignore", "-Wignore", "-u", "-c", code, "a b", "ü", input="hello",
               env={"X": "ö 1"}, cwd=tmp_path)  # fmt: skip
    assert done.stdout == f"['a b', 'ü'] ö 1 {tmp_path} hello\n"


def test_a_script_and_a_module(server, tmp_path):
    (tmp_path / "other.py").write_text("VALUE = 7")
    script = tmp_path / "script.py"
    script.write_text("import other, sys; print(__name__, __file__, sys.argv, other.VALUE)")
    assert run(server, script, "x").stdout == f"__main__ {script} ['{script}', 'x'] 7\n"
    assert run(server, "-m", "other", cwd=tmp_path).returncode == 0
    assert "usage" in run(server, "-m", "json.tool", "--help").stdout


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(7)", 7), ("raise SystemExit('no')", 1), ("1/0", 1),
     ("import os; os._exit(9)", 9), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9)],
)  # fmt: skip
def test_exit_status(server, code, status):
    done = run(server, "-c", code)
    assert done.returncode == status
    assert ("ZeroDivisionError" in done.stderr) == (code == "1/0")


def test_open_files_keep_their_numbers(server):
    read, write = os.pipe()
    os.dup2(write, 57)
    _, shim, env = server
    done = subprocess.run(
        [shim, "-c", "import os; os.write(57, b'through')"], env=env, pass_fds=[57], timeout=30
    )
    os.close(write)
    os.close(57)
    assert done.returncode == 0
    assert os.read(read, 100) == b"through"
    assert os.read(read, 100) == b""  # nobody holds the other end any more
    os.close(read)


def test_atexit_and_threads_end_properly(server):
    code = """
import atexit, threading, time
atexit.register(lambda: print("atexit"))
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
"""
    assert run(server, "-c", code).stdout == "thread\natexit\n"


def test_signals_reach_the_fork(server):
    _, shim, env = server
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
print("ready", flush=True)
time.sleep(30)
"""
    process = subprocess.Popen([shim, "-c", code], env=env, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 42


def test_a_killed_client_takes_its_fork_along_and_a_killed_server_all(server):
    process, shim, env = server
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"

    def start():
        client = subprocess.Popen([shim, "-c", code], env=env, stdout=subprocess.PIPE)
        return client, psutil.Process(int(client.stdout.readline()))

    client, fork = start()
    client.kill()
    fork.wait(5)
    client, fork = start()
    assert os.getpgid(fork.pid) == fork.pid  # Ray kills the group of a worker
    process.kill()
    fork.wait(5)
    assert client.wait(5) != 0


def test_multiprocessing_spawns_through_it(server, tmp_path):
    script = tmp_path / "spawn.py"
    script.write_text("""
import multiprocessing as mp, sys
def work(queue): queue.put("decimal" in sys.modules)
if __name__ == "__main__":
    context = mp.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    print(queue.get(timeout=20)); process.join(); print(process.exitcode)
""")
    assert run(server, script).stdout.split() == ["True", "0"]


def test_many_at_once(server):
    _, shim, env = server
    clients = [
        subprocess.Popen([shim, "-c", f"print({i})"], env=env, stdout=subprocess.PIPE, text=True)
        for i in range(20)
    ]
    assert [client.communicate(timeout=30)[0] for client in clients] == [
        f"{i}\n" for i in range(20)
    ]


def test_another_job_or_no_server_gets_an_ordinary_python(server):
    code = "import sys; print('decimal' in sys.modules)"
    assert run(server, "-c", code, env={"RAY_JOB_ID": "02000000"}).stdout == "False\n"
    assert run(server, "-c", code, env={prefork.SOCKET_ENV: "/nowhere"}).stdout == "False\n"


def test_the_server_imports_packages_of_the_project(server):
    """Started as a script it has plugins/ on its path, where an algos.py lies, too."""
    done = run(server, "-c", "import sys; print(sys.modules['algos'].__file__)")
    assert done.stdout.strip().endswith("/algos/__init__.py"), done.stderr


def test_a_client_and_its_fork_that_end_at_once_hurt_nobody():
    """Both are in one answer of the kernel; the number of the first may be a new fork's by then."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{uuid.uuid4()}")
    forks = prefork.Forks(listener)
    clients = [socket.socketpair() for _ in range(2)]
    processes = [subprocess.Popen(["sleep", "60"]) for _ in clients]
    pidfds = [os.pidfd_open(process.pid) for process in processes]
    ended, new = (
        (process.pid, conn) for process, (conn, _) in zip(processes, clients, strict=True)
    )
    forks.children[pidfds[0]] = ended
    for file, data in ((pidfds[0], None), (ended[1], pidfds[0])):
        forks.select.register(file, prefork.selectors.EVENT_READ, data)
    processes[0].kill()
    forks.fork_ended(pidfds[0])
    forks.client_gone(ended[1], pidfds[0])
    forks.children[pidfds[0]] = new
    forks.client_gone(ended[1], pidfds[0])
    assert processes[1].poll() is None
    processes[1].kill()
    processes[1].wait()
    os.close(pidfds[1])
    for conn in (listener, *clients[0], *clients[1]):
        conn.close()


def test_semaphores_of_a_killed_worker_are_unlinked(server):
    """Ray kills the children of a worker that ends, and the raylet its process group."""
    code = """
import multiprocessing, os, psutil, signal, time
semaphore = multiprocessing.get_context("spawn").Semaphore()
while any(c.status() != psutil.STATUS_ZOMBIE for c in psutil.Process().children()):
    time.sleep(0.05)  # the tracker starts
print(semaphore._semlock.name, flush=True)
for child in psutil.Process().children():
    child.kill()
os.killpg(os.getpid(), signal.SIGKILL)
"""
    done = run(server, "-c", code)
    assert done.returncode == -signal.SIGKILL
    file = Path("/dev/shm/sem." + done.stdout.strip().lstrip("/"))
    deadline = time.time() + 10
    while file.exists() and time.time() < deadline:
        time.sleep(0.05)
    assert not file.exists()


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGKILL, True), (signal.SIGSEGV, True), (signal.SIGTERM, False)]
)
def test_a_fork_that_somebody_kills_is_told(server, tmp_path, number, told):
    done = run(
        server,
        "-c",
        f"import os; print(os.getpid(), flush=True); os.kill(os.getpid(), {int(number)})",
    )
    assert done.returncode == -number
    said = (tmp_path / "log").read_text()
    line = rf"ProcessKilled: \S+ \(process {done.stdout.strip()}\) was ended by {number.name}\n"
    assert re.fullmatch(line, said) if told else said == ""


def test_a_fork_that_goes_with_its_client_is_not_told(server, tmp_path):
    _, shim, env = server
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    client = subprocess.Popen([shim, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    fork = psutil.Process(int(client.stdout.readline()))
    client.kill()
    client.communicate()
    fork.wait(20)
    assert run(server, "-c", "pass").returncode == 0  # it has waited for the fork by now
    assert (tmp_path / "log").read_text() == ""
