"""Run folders as launch.py leaves them, made without a run: for the monitor's tests and bench."""

import datetime
import json
import math
import random
from pathlib import Path

SCHEMA = "shop: customer(id, name, city, age) product(id, name, price)"
PARTS = ("score", "acc", "executed", "masked", "rows", "exec_ms", "cache_hit")
OUTCOMES = ("match", "mismatch", "no_sql", "schema_error", "syntax_error")
CONFIG = """\
lab:
  name: {name}
  seed: {seed}
  stall_timeout_s: 3600
algorithm:
  adv_estimator: grpo
  norm_adv_by_std_in_grpo: true
actor_rollout_ref:
  actor:
    kl_loss_coef: 0.001
    optim: {{lr: {lr}}}
  rollout: {{n: {n}}}
data: {{max_response_length: 64}}
"""


def metrics(step: int, noise: random.Random, lift: float = 0.0) -> dict[str, float]:
    """What a step of GRPO logs: a reward that rises, an entropy that falls, about a hundred names."""
    learned = 1 - math.exp(-step / 300)
    score = 0.1 + (0.5 + lift) * learned + noise.gauss(0, 0.02)
    data = {
        "actor/entropy": 0.2 + 0.3 * (1 - learned) + noise.gauss(0, 0.01),
        "actor/kl_loss": 0.02 * learned + abs(noise.gauss(0, 0.001)),
        "actor/pg_loss": noise.gauss(0, 0.01),
        "actor/loss": noise.gauss(0, 0.01),
        "actor/grad_norm": 0.15 + abs(noise.gauss(0, 0.02)),
        "actor/lr": 1e-4,
        "critic/score/mean": score,
        "critic/rewards/mean": score,
        "response_length/mean": 24 + 10 * learned + noise.gauss(0, 0.5),
        "response_length/clip_ratio": 0.01,
        "timing_s/step": 6.0 + noise.gauss(0, 0.2),
        "training/global_step": step,
    }
    for part in PARTS:
        data[f"reward/{part}"] = 0.0 if part == "masked" else score
        data[f"reward/{part}/std"] = 0.0 if part == "masked" else 0.3
    for i, outcome in enumerate(OUTCOMES):
        data[f"reward/outcome/{outcome}"] = score if i == 0 else (1 - score) / 4
    for phase in ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights"):
        data[f"timing_s/{phase}"] = 1 + noise.gauss(0, 0.05)
        data[f"timing_per_token_ms/{phase}"] = 0.2 + noise.gauss(0, 0.01)
    for group in ("global_seqlen", "prompt_length", "response", "critic/advantages", "critic/returns",
                  "rollout_corr", "perf", "training/off_policy/staleness"):  # fmt: skip
        for name in ("mean", "max", "min", "std", "p50", "p90", "p99", "sum"):
            data[f"{group}/{name}"] = noise.gauss(1, 0.1)
    return data


def answers(step: int, noise: random.Random, groups: int, n: int, parts: bool = True) -> list[dict]:
    """`n` answers to each of some prompts, in groups as verl dumps them."""
    rows = []
    for _ in range(groups):
        uid, fee = f"{noise.getrandbits(64):016x}-{step}", noise.randrange(1, 500)
        for i in range(n):
            score = float(noise.random() < 0.5)
            row = {
                "input": f"user\n{SCHEMA}\nList every product with a price over {fee}.\nassistant\n",
                "output": f"```sql\nSELECT {'name' if score else '*'} FROM product WHERE price > {fee}\n```",
                "gts": f"SELECT name FROM product WHERE price > {fee}",
                "score": score,
                "step": step,
            }
            if parts:
                row |= {"acc": score, "executed": 1.0, "masked": 0.0, "rows": 6.0,
                        "outcome": "match" if score else "mismatch"}  # fmt: skip
            rows.append(row | {"uid": f"{uid}_{i}_0"})
    return rows


def write_lines(file: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(
    folder: Path, steps: int = 20, groups: int = 2, n: int = 4, every: int = 1, seed: int = 0,
    lr: float = 1e-4, ended: bool = True, test_freq: int = 10,
) -> Path:  # fmt: skip
    """A run of GRPO: metrics of all steps, answers every `every` steps, validations."""
    noise = random.Random(seed)
    (folder / ".hydra").mkdir(parents=True)
    overrides = [
        "experiment=demo_grpo",
        f"lab.seed={seed}",
        f"actor_rollout_ref.actor.optim.lr={lr}",
    ]
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    (folder / "resolved.yaml").write_text(CONFIG.format(name=folder.name, seed=seed, lr=lr, n=n))
    (folder / "log.txt").write_text("starting\nTraining from scratch\n")
    begin = datetime.datetime.now().astimezone() - datetime.timedelta(seconds=6 * steps)
    end = {"end": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "exit": 0}
    attempt = {
        "command": ["launch.py", *overrides],
        "start": begin.isoformat(timespec="seconds"),
        "versions": {"verl": "0.9.1"},
        "git": "0123456789ab",
        **(end if ended else {"end": None, "exit": None}),
    }
    (folder / "run.json").write_text(json.dumps({"attempts": [attempt]}))
    asked = answers(0, random.Random(7), groups=4, n=1)
    records = []
    for step in range(steps + 1):
        data = metrics(step, noise, lift=seed / 50) if step else {}
        if step % test_freq == 0:
            right = [noise.random() < 0.2 + 0.6 * step / steps for _ in asked]
            rows = [row | {"score": float(ok), "acc": float(ok), "step": step}
                    for row, ok in zip(asked, right, strict=True)]  # fmt: skip
            write_lines(folder / f"validation/{step}.jsonl", rows)
            data["val-core/sql_demo/acc/mean@1"] = sum(right) / len(right)
        if step and step % every == 0:
            write_lines(folder / f"rollouts/{step}.jsonl", answers(step, noise, groups, n))
        records.append({"step": step, "data": data})
    write_lines(folder / "metrics.jsonl", records)
    return folder
