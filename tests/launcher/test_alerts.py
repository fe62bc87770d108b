"""What is told of a run that goes wrong: rows as a run writes them, broken in one way each."""

import json
import math
import re

import pytest
from helpers import ROOT
from omegaconf import OmegaConf

from launcher.alerts import RULES, Watch, defaults
from launcher.progress import Progress
from launcher.results import Attempt, summary

LIMITS = defaults()
FINE = {
    "rollout_corr/kl": 2e-7, "actor/weights_changed": 0.9, "actor/grad_norm": 0.2, "actor/pg_loss": -1e-3,
    "actor/kl_loss": 0.02, "actor/entropy": 0.3, "response_length/clip_ratio": 0.01, "reward/masked": 0.0,
    "groups/same_score": 0.3, "critic/score/mean": 0.4,
}  # fmt: skip
ACCURACY = "val-core/sql_demo/acc/mean@1"
STEPS = 40


def rows(**odd: list) -> dict[int, dict]:
    """Forty steps of a run that is well, but for the last values of some metrics; a validation every ten."""
    made = {step: dict(FINE) for step in range(1, STEPS + 1)}
    for step in range(10, STEPS + 1, 10):
        made[step] |= {ACCURACY: 0.5, "val-aux/same_answer": 0.05}
    for name, values in odd.items():
        having = [step for step in made if name in made[step]] or list(made)
        for step, value in zip(having[-len(values) :], values, strict=True):
            made[step][name] = value
    return made


def watched(made: dict[int, dict], limits=LIMITS) -> Watch:
    """Rows through JSON, as metrics.jsonl has them: what is no number is null there."""
    watch = Watch(limits)
    for step, metrics in made.items():
        null = {k: v if v is not None and math.isfinite(v) else None for k, v in metrics.items()}
        watch.step(step, json.loads(json.dumps(null)))
    return watch


RISES = {"critic/score/mean": [0.4 + step / 100 for step in range(STEPS)]}
BROKEN = [
    # vLLM keeps the first policy: its distance grows with every step, from far below the limit on
    ("rollout_drift", {"rollout_corr/kl": [1e-4 * step**2 for step in range(STEPS)]}, 0.148),
    ("rollout_drift", {"rollout_corr/kl": [0.002] * 20}, 0.002),  # grown from a rounding error
    ("unchanged_weights", {"actor/weights_changed": [0.0, 0.0, 0.0]}, 3),
    ("no_numbers", {"actor/grad_norm": [math.nan]}, 1),
    ("no_numbers", {"actor/pg_loss": [math.inf, 0.1, math.nan]}, 2),
    ("ungraded", {"reward/masked": [0.3] * 5}, 0.3),
    ("same_scores", {"groups/same_score": [0.9] * 5}, 0.9),
    ("truncated", {"response_length/clip_ratio": [0.4] * 5}, 0.4),
    ("entropy_fall", {"actor/entropy": [0.02] * 5}, 0.0667),
    ("kl_high", {"actor/kl_loss": [0.2] * 5}, 0.2),
    ("kl_low", {"actor/kl_loss": [1e-7] * STEPS}, 1e-7),
    ("held_out_fall", RISES | {ACCURACY: [0.5, 0.6, 0.45, 0.4]}, 0.15),
    ("same_answers", {"val-aux/same_answer": [1.0]}, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "odd", "value"), BROKEN, ids=[kind for kind, *_ in BROKEN])
def test_each_sees_its_own_and_nothing_else(kind, odd, value):
    watch = watched(rows(**odd))
    assert list(watch.found) == [kind] and watch.holding == {kind}
    alert = watch.found[kind]
    assert alert.last == STEPS and alert.value == pytest.approx(value, rel=0.01)
    words = alert.words()
    assert "{" not in words and "\n" not in words and f"lab.alerts.{kind}" in words
    assert (
        f"{alert.limit:g}" in words
        or f"{alert.limit:.0%}" in words
        or f"{alert.limit:.0e}" in words
    )
    assert watched(rows(**odd), LIMITS | {kind: None}).found == {}  # null switches it off


def test_every_rule_has_a_limit_and_a_case():
    kinds = [rule.kind for rule in RULES]
    assert sorted(kinds) == sorted(LIMITS) == sorted({kind for kind, *_ in BROKEN})


def test_the_documents_have_each_with_its_limit():
    table = (ROOT / "docs/monitor.md").read_text()
    for kind, limit in LIMITS.items():
        (row,) = re.findall(rf"^\| `{kind}` .*$", table, re.MULTILINE)
        assert f"{limit:f}".rstrip("0").rstrip(".") in row.split("|")[4], row


def test_a_run_that_is_well_has_none():
    assert watched(rows()).found == {}


@pytest.mark.parametrize(
    "odd",
    [
        {"actor/weights_changed": [0.0], "actor/grad_norm": [0.0]},  # no gradient, no change
        {"actor/weights_changed": [0.0, 0.0], "actor/grad_norm": [0.2, 0.0]},
        {"actor/kl_loss": [0.3, 0.02, 0.02]},  # a single step jumps
        {"response_length/clip_ratio": [0.8, 0.0, 0.0, 0.0]},
        {ACCURACY: [0.5, 0.6, 0.45, 0.4]},  # falls, and the reward with it
        RISES | {ACCURACY: [0.5, 0.6, 0.55, 0.45]},  # one of two is near the best
        RISES | {ACCURACY: [0.3, 0.4, 0.5, 0.6]},
        {
            "rollout_corr/kl": [0.0017] * STEPS
        },  # bf16 with random weights: it rounds as in the first step
    ],
)
def test_what_is_no_fault(odd):
    assert watched(rows(**odd)).found == {}


def test_the_first_steps_are_not_blamed():
    """KL is 0 in the first step whatever is right, and a warm-up's first learning rate is 0."""
    begin = FINE | {"actor/kl_loss": 0.0, "actor/entropy": 9.0, "response_length/clip_ratio": 1.0,
                    "groups/same_score": 1.0, "reward/masked": 0.5}  # fmt: skip
    watch = watched({1: begin | {"actor/weights_changed": 0.0}, 2: begin})
    assert watch.found == {}


def test_sft_is_watched_by_its_own_names():
    sft = {"train/loss": 1.0, "train/grad_norm": 2.0, "weights_changed": 0.0}
    assert set(watched(dict.fromkeys(range(1, 4), sft)).found) == {"unchanged_weights"}
    assert set(watched({1: sft | {"weights_changed": 1.0, "train/loss": None}}).found) == {
        "no_numbers"
    }


def test_it_is_told_when_it_begins_and_not_again():
    watch, told = Watch(LIMITS), []
    for step, metrics in rows(**{"actor/kl_loss": [0.3] * 20 + [0.01] * 10 + [0.3] * 8}).items():
        told += [(step, alert.rule.kind) for alert in watch.step(step, metrics)]
    assert told == [(5, "kl_high")]
    assert watch.found["kl_high"].last == STEPS


def test_a_run_that_goes_on_knows_its_past_and_tells_of_it_no_more(tmp_path):
    file = tmp_path / "metrics.jsonl"
    past = rows(**{"actor/kl_loss": [0.3] * STEPS})
    file.write_text("".join(json.dumps({"step": s, "data": m}) + "\n" for s, m in past.items()))
    watch = Watch.goes_on(LIMITS, file)
    assert watch.found == {} and watch.records() == []
    assert [a.first for a in watch.step(STEPS - 1, past[1])] == [
        STEPS - 1
    ]  # from a checkpoint before
    assert watch.history.series("actor/kl_loss")[-1] == (STEPS - 1, 0.3)
    assert len(watch.history.series("actor/kl_loss")) == STEPS - 1


def test_the_screen_and_run_json_have_it(tmp_path, capsys):
    config = OmegaConf.create({"lab": {"alerts": LIMITS}})
    attempt = Attempt(tmp_path, ["launch.py"], config)
    (tmp_path / "log.txt").touch()
    progress = Progress(tmp_path, "rl", None, watch=attempt.watch)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        for step, metrics in rows(**{"actor/weights_changed": [0.0] * 3}).items():
            file.write(json.dumps({"step": step, "data": metrics}) + "\n")
            file.flush()
            progress()
    shown = [line for line in capsys.readouterr().out.splitlines() if "alert: " in line]
    assert len(shown) == 1 and "alert: the weights do not change: 2 steps" in shown[0]
    attempt.end(0)
    (said,) = json.loads((tmp_path / "run.json").read_text())["attempts"][-1]["alerts"]
    assert said == {"kind": "unchanged_weights", "first": STEPS - 1, "last": STEPS, "value": 3.0, "limit": 2,
                    "title": "the weights do not change"}  # fmt: skip
    for code in (0, 1, 124):  # the end of a run says it again, however it ended
        assert f"the weights do not change: steps {STEPS - 1} to {STEPS}, 3 at" in summary(
            tmp_path, code, 60, 0
        )


@pytest.fixture
def shown(tmp_path, capsys):
    """`shown(text)` → what the screen shows of a log that gets this text."""
    log = tmp_path / "log.txt"
    log.write_text("")
    progress = Progress(tmp_path, "rl", None)

    def show(text: str) -> str:
        log.write_text(text)
        progress()
        return capsys.readouterr().out

    return show


def test_an_alert_of_a_stage_is_shown_by_the_whole(shown):
    out = shown(
        "[stage]    0:31  alert: KL is high: KL to the reference\n[stage]  1/4  0.2 alert\n"
    )
    assert out.count("alert: KL is high") == 1


def test_a_message_from_a_worker_of_ray_is_shown(shown):
    out = shown("(TaskRunner pid=123) [message] wandb failed (CommError): the training goes on\n")
    assert "wandb failed (CommError)" in out


def test_the_patches_and_the_screen_agree_how_a_message_begins():
    from launcher.progress import MESSAGE
    from plugins.patches import loggers

    assert MESSAGE == loggers.MESSAGE
