"""The monitor: its server over made run folders, what it says is wrong, and its page in a real browser."""

import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import chromium
import pytest
from helpers import ROOT, heed_ctrl_c
from monitor_runs import make_run, metrics, write_lines

from launcher.metrics import parse, read_metrics
from tools import monitor
from tools._monitor.answers import advantages, read
from tools._monitor.metrics import Metrics, sections, thinned
from tools._monitor.runs import Runs

WAIT_S = 120
WILD = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><b>bold</b>"


class Server:
    """`python -m tools.monitor` over a folder."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "tools.monitor", str(folder), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        self.said = [self.process.stdout.readline()]
        while self.said[-1] and "http://" not in self.said[-1]:
            self.said.append(self.process.stdout.readline())
        assert self.said[-1], self.process.stderr.read()
        self.url = self.said[-1].split()[0]

    def get(self, path, host=None):
        """Status and body."""
        request = urllib.request.Request(self.url + path, headers={"Host": host} if host else {})
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def ask(self, name, **parameters):
        status, body = self.get(f"/api/{name}?{urllib.parse.urlencode(parameters, doseq=True)}")
        assert status == 200, body
        return json.loads(body)

    def runs(self):
        return {run["id"]: run for run in self.ask("runs")["runs"]}

    def wait(self, condition):
        """What the condition gives, as soon as that is true."""
        end = time.monotonic() + WAIT_S
        while not (value := condition()):
            assert time.monotonic() < end, f"never so: {self.ask('runs')}"
            time.sleep(0.05)
        return value

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, err


@pytest.fixture
def serve():
    """`serve(folder)` → a server that has looked at all runs."""
    started = []

    def begin(folder, *options):
        server = Server(folder, *options)
        started.append(server)
        server.wait(lambda: server.ask("runs")["looked"])
        return server

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture
def two(tmp_path):
    """Two runs below a folder, which differ in seed and learning rate."""
    make_run(tmp_path / "outputs/a/one", steps=20, seed=1)
    make_run(tmp_path / "outputs/b/two", steps=30, seed=2, lr=5e-4)
    return tmp_path / "outputs"


def step_line(step, **more):
    return json.dumps({"step": step, "data": {"critic/score/mean": step / 100, **more}}) + "\n"


# what the server answers


def test_runs_curves_and_differences(serve, two):
    server = serve(two)
    found = server.runs()
    assert {name: (run["state"], run["step"]) for name, run in found.items()} == {
        "a/one": ("done", 20),
        "b/two": ("done", 30),
    }
    assert found["a/one"]["steps"] == {"rollouts": 20, "validation": 3}
    curves = server.ask("curves", run=["a/one", "b/two"], section=["Main", "Reward: classes"])
    assert [s["title"] for s in curves["sections"]][:3] == [
        "Main",
        "Reward: parts",
        "Reward: classes",
    ]
    charts = {c["name"]: c["series"] for s in curves["sections"] for c in s["charts"]}
    assert "reward/outcome/match" in charts and "reward/acc" not in charts  # nobody asked for parts
    one, two_ = charts["critic/score/mean"]
    assert one["run"] == "a/one" and one["x"] == list(range(1, 21)) and two_["x"][-1] == 30
    lines = (two / "a/one/metrics.jsonl").read_text().splitlines()
    written = [json.loads(line)["data"]["critic/score/mean"] for line in lines[1:]]
    assert one["y"] == pytest.approx(written, rel=1e-5)
    both = server.ask("compare", run=["a/one", "b/two"])
    changed = {row["key"]: row["values"] for row in both["differences"]}
    assert changed["actor_rollout_ref.actor.optim.lr"] == ["0.0001", "0.0005"]
    assert changed["lab.seed"] == ["1", "2"] and "algorithm.adv_estimator" not in changed
    assert server.ask("runs")["machine"]["total_gib"] > 0


def test_answers_of_a_step_by_group(serve, two):
    server = serve(two)
    page = server.ask("answers", run="a/one", step=7)
    assert page["of"] == 2 and [len(g["answers"]) for g in page["groups"]] == [4, 4]
    rows = read(two / "a/one/rollouts/7.jsonl")
    group = page["groups"][0]
    assert [a["text"] for a in group["answers"]] == [row["output"] for row in rows[:4]]
    assert (
        group["question"].startswith("List every product") and group["reference"] == rows[0]["gts"]
    )
    assert group["answers"][0]["parts"]["outcome"] == rows[0]["outcome"]
    assert [a["score"] for a in group["answers"]] == [row["score"] for row in rows[:4]]
    one = server.ask("answers", run="a/one", step=7, words=rows[4]["input"][-30:-11], order="best")
    assert one["of"] == 1 and one["groups"][0]["prompt"] == rows[4]["input"]
    assert (
        server.ask("answers", run="a/one", step=7, begin=1, count=1)["groups"][0]["prompt"]
        == rows[4]["input"]
    )


def test_the_same_prompt_over_the_validations(serve, two):
    server = serve(two)
    table = server.ask("prompts", run="a/one")
    assert table["steps"] == [0, 10, 20] and table["of"] == 4
    first = table["prompts"][0]
    found = server.ask("prompt", run="a/one", id=first["id"])["steps"]
    assert [group["step"] for group in found] == [0, 10, 20]
    assert [group["answers"][0]["score"] for group in found] == first["scores"]


def test_a_folder_of_one_run_is_that_run(serve, two):
    assert list(serve(two / "a/one").runs()) == ["one"]


# what is refused

PLACES = [
    "/../tools/monitor.py", "/..%2fserver.py", "/%2e%2e/%2e%2e/server.py", "//etc/passwd", "/%2fetc%2fpasswd",
    "/..%252fserver.py", "/page/index.html", "/main.js/../../server.py", "/api/answers?run=../secret&step=1",
    "/api/answers?run=a/one/../../../secret&step=1", "/api/answers?run=%2e%2e%2fsecret&step=1",
    "/api/answers?run=a/one&step=../../../secret/rollouts/1", "/api/answers?run=a/one&step=1%00",
    "/api/answers?run=a/one&kind=../../../secret/rollouts&step=1", "/api/answers?run=a/one&step=-1",
    "/api/answers?run=a/one&step=1&order=__class__", "/api/steps?run=/etc", "/api/answers?run=a/one&step=9",
    "/api/answers?run=c/link&step=1", "/api/compare?run=../secret",
]  # fmt: skip


def test_nothing_outside_the_folder_can_be_read(serve, two, tmp_path):
    secret = make_run(tmp_path / "secret", steps=2)
    for line in ("rollouts/1.jsonl", "metrics.jsonl", "run.json", "resolved.yaml"):
        (secret / line).write_text((secret / line).read_text().replace("product", "SECRET"))
    (two / "a/one/rollouts/9.jsonl").unlink()
    (two / "a/one/rollouts/9.jsonl").symlink_to(secret / "rollouts/1.jsonl")
    (two / "c").mkdir()
    (two / "c/link").symlink_to(secret)
    server = serve(two)
    assert set(server.runs()) == {"a/one", "b/two"}  # a link is no run of this folder
    for place in PLACES:
        connection = socket.create_connection(
            ("127.0.0.1", int(server.url.rsplit(":")[-1])), WAIT_S
        )
        with connection:  # as it stands: a client of HTTP would tidy it up
            connection.sendall(
                f"GET {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))
        status = int(answer.split()[1])
        assert status in (400, 404, 422), (place, answer[:300])
        assert b"SECRET" not in answer and b"root:" not in answer and b"import" not in answer, place


def test_a_page_of_the_web_cannot_ask_by_a_name_of_its_own(serve, two):
    server = serve(two)
    assert server.get("/api/runs", host="evil.example")[0] == 400
    assert server.get("/api/runs", host="localhost")[0] == 200


def test_it_changes_nothing_and_takes_no_orders(serve, two):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in two.rglob("*")}

    before = state()
    server = serve(two)
    server.ask("answers", run="a/one", step=1)
    request = urllib.request.Request(server.url + "/api/runs", method="POST", data=b"{}")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request)
    assert state() == before


# a run that grows, half-written lines, a folder that disappears


def test_a_run_that_grows_is_followed(serve, tmp_path):
    run = make_run(tmp_path / "outputs/live", steps=3, ended=False)
    server = serve(tmp_path / "outputs")
    assert server.runs()["live"]["state"] == "running" and server.runs()["live"]["step"] == 3
    line = step_line(4)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(line[:20])
        file.flush()
        make_run(tmp_path / "outputs/later", steps=1)
        server.wait(lambda: "later" in server.runs())  # it has looked since
        assert server.runs()["live"]["step"] == 3
        file.write(line[20:])
    server.wait(lambda: server.runs()["live"]["step"] == 4)
    curve = server.ask("curves", run="live", section="Main")["sections"][0]["charts"][0]["series"][
        0
    ]
    assert curve["x"][-1] == 4 and curve["y"][-1] == 0.04
    write_lines(
        run / "rollouts/4.jsonl", [{"input": "q", "output": "new", "score": 1.0, "uid": "u_0_0"}]
    )
    server.wait(lambda: server.runs()["live"]["steps"]["rollouts"] == 4)
    assert server.ask("answers", run="live", step=4)["groups"][0]["answers"][0]["text"] == "new"
    record = json.loads((run / "run.json").read_text())
    record["attempts"][-1] |= {"end": record["attempts"][-1]["start"], "exit": 1}
    (run / "run.json").write_text(json.dumps(record))
    server.wait(lambda: server.runs()["live"]["state"] == "failed")


def test_a_half_written_answer_is_left_out(serve, two):
    file = two / "a/one/rollouts/5.jsonl"
    file.write_text(file.read_text()[:-60])
    assert server_answers(serve(two), 5) == 7


def server_answers(server, step):
    return server.ask("answers", run="a/one", step=step)["answers"]


def test_the_monitor_reads_the_steps_that_all_others_read(tmp_path):
    """Starts that go on from where they were saved, drawn at random: as launcher/metrics.py reads the file."""
    draw = random.Random(0)
    lines, step = [], 0
    for _ in range(200):
        step = draw.randrange(step + 1) if draw.random() < 0.2 else step + 1
        data = {name: float(len(lines)) for name in ("x", "y", "val") if draw.random() < 0.7}
        lines.append(json.dumps({"step": step, "data": data}))
        if len(lines) % 10 == 0:
            (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            metrics = Metrics()
            for line in lines:
                metrics.add(*parse(line))
            known = read_metrics(tmp_path / "metrics.jsonl")
            assert metrics.order == sorted(known)
            for name in ("x", "y", "val"):
                series = [(s, m[name]) for s, m in sorted(known.items()) if name in m]
                assert metrics.series(name) == series


def test_a_step_that_is_run_again_counts_as_run_last(serve, two):
    server = serve(two)
    with open(two / "a/one/metrics.jsonl", "a") as file:
        file.write(step_line(10, **{"actor/entropy": 77.0}))

    def ys():
        charts = server.ask("curves", run="a/one", section="Main")["sections"][0]["charts"]
        series = next(c for c in charts if c["name"] == "actor/entropy")["series"][0]
        return dict(zip(series["x"], series["y"], strict=True))

    server.wait(lambda: ys()[10] == 77.0)
    assert list(ys()) == list(range(1, 11))  # the run goes on from there


def test_another_file_in_the_place_of_the_metrics(serve, two):
    server = serve(two)
    (two / "a/one/new").write_text(step_line(2))
    os.replace(two / "a/one/new", two / "a/one/metrics.jsonl")
    server.wait(lambda: server.runs()["a/one"]["step"] == 2)


def test_a_folder_that_disappears(serve, two):
    server = serve(two)
    assert server.ask("answers", run="b/two", step=1)["of"] == 2
    shutil.rmtree(two / "b")
    server.wait(lambda: set(server.runs()) == {"a/one"})
    assert server.get("/api/answers?run=b/two&step=1")[0] == 404
    assert server.ask("curves", run=["b/two", "a/one"], section="Main")["versions"].keys() == {
        "a/one"
    }


def test_a_folder_without_runs_is_waited_for(serve, tmp_path):
    server = serve(tmp_path)
    assert "no run in" in server.said[0] and "appear" in server.said[0]
    make_run(tmp_path / "first", steps=2)
    server.wait(lambda: "first" in server.runs())


def test_broken_files_break_nothing(serve, tmp_path):
    run = make_run(tmp_path / "outputs/odd", steps=4)
    (run / "run.json").write_text('{"attempts": [')
    (run / "resolved.yaml").write_text("a: [")
    (run / "metrics.jsonl").write_text(
        'nonsense\n{"step": 1, "data": {"train/loss": NaN, "x": "text", "y": true}}\n[1]\n'
    )
    (run / "rollouts/1.jsonl").write_text(
        'nonsense\n[1]\n{"output": 5}\n{"input": null, "score": NaN, "uid": 3}\n'
    )
    (run / "rollouts/notes.jsonl").write_text("x")
    server = serve(tmp_path / "outputs")
    assert server.runs()["odd"]["step"] == 1 and server.runs()["odd"]["state"] == "running"
    assert [w["rule"] for w in server.runs()["odd"]["warnings"]] == [
        "a gradient or a loss is no number"
    ]
    assert server.ask("answers", run="odd", step=1)["answers"] == 2
    assert server.ask("curves", run="odd", section="Main")["sections"][0]["charts"][0]["series"][0][
        "y"
    ] == [None]
    assert server.ask("compare", run="odd")["runs"] == ["odd"]


# the command line


def test_ctrl_c_ends_it_without_a_traceback(serve, two):
    status, out, err = serve(two).stop()
    assert status in (0, 130) and err == "" and "token" not in out


def test_a_port_in_use_is_said_in_a_line(two, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert monitor.main([str(two), "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert f"port {port}" in err and f"--port {port + 1}" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_a_port_that_is_none(two, port, capsys):
    assert monitor.main([str(two), "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


def test_a_missing_folder_and_a_file(tmp_path, capsys, monkeypatch):
    assert monitor.main([str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert monitor.main([str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert monitor.main([]) == 2
    assert "neither outputs nor multirun" in capsys.readouterr().err


def test_it_listens_to_this_machine_alone(serve, two):
    server = serve(two)
    assert server.url.startswith("http://127.0.0.1:")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", int(server.url.rsplit(":")[-1])), 5)


# what looks wrong


def test_a_run_that_stands_still(serve, tmp_path):
    run = make_run(tmp_path / "outputs/stuck", steps=3, ended=False)
    past = time.time() - 4000
    for path in [run, *run.rglob("*")]:
        os.utime(path, (past, past))
    server = serve(tmp_path / "outputs")
    found = server.runs()["stuck"]
    assert found["state"] == "no progress" and found["warnings"][0]["rule"] == "no progress"
    (run / "log.txt").write_text("something new\n")
    server.wait(lambda: server.runs()["stuck"]["state"] == "running")


def test_it_follows_the_rules_and_limits_of_the_run(serve, tmp_path):
    """One set of rules for both (tests/launcher/test_alerts.py); a limit may be null."""
    for name, limit in (("flat", 0.8), ("off", "null")):
        run = make_run(tmp_path / "outputs" / name, steps=6)
        file = run / "metrics.jsonl"
        rows = read(file)
        for row in rows:
            row["data"]["groups/same_score"] = 1.0
        write_lines(file, rows)
        config = run / "resolved.yaml"
        text = config.read_text().replace("lab:\n", f"lab:\n  alerts: {{same_scores: {limit}}}\n")
        config.write_text(text)
    found = serve(tmp_path / "outputs").runs()
    (warning,) = found["flat"]["warnings"]
    assert warning["rule"] == "groups without spread" and warning["metric"] == "groups/same_score"
    assert warning["words"].startswith("100% of the groups") and warning["value"] == 1.0
    assert found["off"]["warnings"] == []


# the pieces


def test_advantages_are_those_of_grpo():
    """One right answer of eight: 2.4749, as verl logs it for such a step."""
    assert advantages([1.0] + [0.0] * 7)[0] == pytest.approx(2.47487, abs=1e-4)
    assert advantages([1.0, None, 0.0], by_std=False) == [0.5, None, -0.5]
    assert advantages([1.0]) == [None] and advantages([0.5, 0.5]) == [0.0, 0.0]


def test_a_thinned_curve_keeps_its_ends_and_its_spikes():
    series = [(s, 1000.0 if s == 777 else math.sin(s)) for s in range(10_000)]
    thin = thinned(series, 500)
    assert len(thin) <= 500 and thin[0] == series[0] and thin[-1] == series[-1]
    assert (777, 1000.0) in thin and thin == sorted(thin)
    assert thinned(series[:500], 500) == series[:500]


def test_every_metric_stands_in_one_section():
    names = set(metrics(1, random.Random(0))) | {"val/loss", "train/loss", "odd"}
    placed = [name for _, members in sections(names) for name in members]
    assert sorted(placed) == sorted(names)


def test_metrics_that_come_late_have_no_value_before():
    kept = Metrics()
    kept.add(1, {"a": 1.0})
    kept.add(2, {"a": 2.0})
    kept.add(3, {"a": 3.0, "b": 7.0})
    assert kept.series("a") == [(1, 1.0), (2, 2.0), (3, 3.0)] and kept.series("b") == [(3, 7.0)]
    assert (
        kept.last("a") == 3.0
        and kept.last("b") == 7.0
        and kept.last(None) is None
        and kept.last_step == 3
    )


def test_gpus_as_nvidia_smi_tells_them(tool):
    from tools._monitor.machine import gpus

    tool()
    assert gpus() == []
    tool(
        "nvidia-smi",
        "0, NVIDIA H100, 87, 40960, 81920, 512.3, 61",
        "1, NVIDIA H100, [N/A], 1024, 81920, [N/A], 40",
    )
    assert [g["busy"] for g in gpus()] == [87.0, None] and gpus()[0]["used_gib"] == 40.0
    tool("nvidia-smi", "an error", status=9)
    assert gpus() == []


def test_runs_in_a_tree_of_other_folders(tmp_path):
    make_run(tmp_path / "sweep/0", steps=1)
    make_run(tmp_path / "sweep/1", steps=1)
    (tmp_path / "sweep/0/checkpoints/global_step_1").mkdir(parents=True)
    (tmp_path / "sweep/0/checkpoints/global_step_1/run.json").write_text("{}")
    runs = Runs({"multirun": tmp_path})
    runs.look()
    assert set(runs.runs) == {"multirun/sweep/0", "multirun/sweep/1"}


# the page in a browser


@pytest.fixture
def browser(tmp_path):
    if not chromium.found():
        pytest.skip("no chromium: apt-get install chromium")
    with chromium.Browser(tmp_path / "profile") as window:
        yield window
        assert window.errors == []


def test_the_page_shows_runs_curves_comparison_and_follows(serve, browser, two):
    server = serve(two)
    browser.open(server.url)
    browser.wait("document.querySelectorAll('#overview tbody tr').length == 2")
    assert "a/one" in browser.text() and "nothing in the selected runs" in browser.text()
    browser.run("document.querySelector('[data-view=curves]').click()")
    browser.wait("document.querySelectorAll('.chart canvas').length > 8")
    drawn = """(() => {
        const canvas = document.querySelector('[data-name="critic/score/mean"] canvas');
        const p = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, seen = new Set();
        for (let i = 0; i < p.length; i += 4) {
            const rgb = [p[i], p[i + 1], p[i + 2]];
            if (p[i + 3] > 200 && Math.max(...rgb) - Math.min(...rgb) > 60) seen.add(rgb.join());
        }
        return seen.size;
    })()"""
    browser.wait(f"{drawn} >= 2")  # a line of its own colour for each run
    browser.run("document.querySelector('[data-section=\"Times\"] summary').click()")
    browser.wait("document.querySelector('[data-name=\"timing_s/gen\"]')")
    with open(two / "a/one/metrics.jsonl", "a") as file:
        file.write(step_line(21, **{"train/brand_new": 1.0}))
    browser.wait("document.body.innerText.includes('step 21')")
    browser.run("document.querySelector('[data-view=compare]').click()")
    browser.wait("document.querySelector('#differences')")
    assert "actor_rollout_ref.actor.optim.lr" in browser.run(
        "document.querySelector('#differences').innerText"
    )
    browser.run("document.querySelector('[data-run=\"b/two\"] input').click()")
    browser.wait("document.querySelectorAll('#figures th').length == 2")


def test_answers_are_text_whatever_they_hold(serve, browser, two):
    for kind, step in (("rollouts", 20), ("validation", 0), ("validation", 20)):
        file = two / f"a/one/{kind}/{step}.jsonl"
        rows = read(file)
        bad = {"output": WILD, "gts": WILD, "outcome": WILD, "input": f"user\n{WILD}\nassistant\n"}
        write_lines(file, [row | bad for row in rows])
    (two / "a/one/resolved.yaml").write_text(json.dumps({"lab": {"seed": WILD, WILD: 1}}))
    shutil.move(two / "a/one", two / "a/<img src=x onerror=document.title=1>")
    server = serve(two)
    name = urllib.parse.quote("a/<img src=x onerror=document.title=1>")
    for view, ready in (
        ("runs", "#overview"),
        ("compare", "#figures"),
        ("answers", "#answers .group"),
        ("validation", "#validation"),
    ):
        browser.open("about:blank")
        browser.open(f"{server.url}/#view={view}&of={name}")
        browser.wait(f"document.querySelector('{ready}')")
        assert browser.run("document.title") == "verl-lab monitor"
        assert (
            browser.run(
                "document.querySelectorAll('main img, main script, main b b, aside img').length"
            )
            == 0
        )
        if view in ("answers", "validation"):
            assert "<script>document.title='owned'</script>" in browser.text()
    browser.run("document.querySelector('#validation tbody tr').click()")
    browser.wait("document.querySelector('pre.answer')")
    assert browser.run("document.querySelector('pre.answer').textContent") == WILD


def test_answers_are_found_and_followed_by_clicks(serve, browser, two):
    server = serve(two)
    browser.open(f"{server.url}/#view=answers&of=a/one")
    browser.wait("document.querySelector('#answers')?.dataset.step == '20'")
    browser.run("[...document.querySelectorAll('button')].find(b => b.textContent == '‹').click()")
    browser.wait("document.querySelector('#answers')?.dataset.step == '19'")
    rows = read(two / "a/one/rollouts/19.jsonl")
    shown = browser.run("[...document.querySelectorAll('pre.answer')].map(p => p.textContent)")
    assert shown == [row["output"] for row in rows]
    assert "computed here" in browser.text()
