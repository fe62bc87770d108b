"""Self-play without a run: the pairs, the prompts of the rounds, what is configured, what is kept."""

import contextlib
import json
import os
import shutil
import sys
import zlib
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from algos import _pairing, _prompts, _samples, self_play
from data_prep import _schema
from launcher import stages
from launcher.checkpoints import latest_model
from launcher.metrics import read_metrics
from preflight.names import groups


def line(prompt: str, output: str, score: float, masked: float = 0.0) -> dict:
    messages = [{"role": "user", "content": prompt}]
    return {"prompt": messages, "output": output, "score": score, "masked": masked}


def test_pairs_are_preference_rows(composer, tmp_path):
    groups = [
        [line("p", "bad", 0.0), line("p", "good", 1.0), line("p", "broken", 0.0, masked=1.0)],
        [line("q", "x", 1.0), line("q", "y", 1.0)],
        [line("p", "worse", 0.2), line("p", "better", 0.9)],  # another row with the same text
    ]
    rows, counts = _pairing.make_pairs(groups, 1, 0.0)
    assert counts == {"prompts": 3, "pairs": 2, "prompts_without_pair": 1}
    config = composer("algo=self_play", "+self_play.train.dpo.loss=ipo", "self_play.beta=0.3")
    changes = _pairing.write_pairs(tmp_path / "dpo", rows, config)
    table = pq.read_table(changes.data.train_files)
    assert table.schema.equals(_schema.arrow("preference"))
    assert [
        problem for row in table.to_pylist() for problem in _schema.check("preference", row)
    ] == []
    texts = [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in table.to_pylist()]
    assert texts == [("good", "bad"), ("better", "worse")]
    assert dict(changes.dpo) == {"beta": 0.3, "loss": "ipo"}
    assert changes.data.train_batch_size == 2  # of 32: verl would drop a batch that isn't full


def test_a_round_without_pairs_is_an_error():
    with pytest.raises(
        stages.StageError, match=r"any of 1 prompts differ .* self_play\.margin=0\.5"
    ):
        _pairing.make_pairs([[line("p", "a", 0.6), line("p", "b", 0.2)]], 1, 0.5)


@pytest.mark.parametrize(
    ("pairs", "workers", "batch"), [(100, 1, 25), (64, 1, 32), (7, 2, 6), (33, 3, 15)]
)
def test_batches_use_the_round_up_and_divide_by_the_workers(
    composer, tmp_path, pairs, workers, batch
):
    config = composer("algo=self_play", f"lab.hw.gpus_per_node={workers}")
    rows = _pairing.make_pairs([[line("p", "a", 0.0), line("p", "b", 1.0)]] * pairs, 1, 0.0)[0]
    assert _pairing.write_pairs(tmp_path / "dpo", rows, config).data.train_batch_size == batch


def test_rounds_share_out_the_prompts():
    rounds = [_prompts.share(10, 4, t, seed=0) for t in range(1, 6)]
    flat = [row for rows in rounds for row in rows]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))  # two epochs
    assert flat[:10] != flat[10:]
    assert rounds == [_prompts.share(10, 4, t, seed=0) for t in range(1, 6)]
    assert rounds[0] != _prompts.share(10, 4, 1, seed=1)
    seeds = {_prompts.round_seed(seed, t) for seed in range(4) for t in range(8)}
    assert (
        len(seeds) == 32
    )  # no round draws what another one drew, of this run or of one with another seed


def test_a_limit_takes_the_rows_that_verl_takes(tmp_path, tiny_model):
    """As verl's own dataset with the same settings."""
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    message = [{"role": "user", "content": "hello"}]
    rows = [{"prompt": message, "data_source": "d", "extra_info": {"index": i}} for i in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for shuffle in (True, False):
        data = OmegaConf.create({"shuffle": shuffle, "seed": 5, "cache_dir": str(tmp_path)})
        ours = _prompts.read(str(tmp_path / "rows.parquet"), 8, data)["extra_info"].to_pylist()
        theirs = RLHFDataset(str(tmp_path / "rows.parquet"), tokenizer, data, max_samples=8)
        assert [row["index"] for row in ours] == [theirs[i]["index"] for i in range(8)]
    assert len(_prompts.read(str(tmp_path / "rows.parquet"), -1, data)) == 30


def rows_of(source: str, texts: list[str], **info) -> pa.Table:
    return pa.Table.from_pylist([
        {"data_source": source, "prompt": [{"role": "user", "content": text}], "extra_info": {"index": i, **info}}
        for i, text in enumerate(texts)
    ])  # fmt: skip


def test_answers_find_back_to_their_prompts(tmp_path):
    """Two prompts of the same text, dumped in any order, one left out by verl as too long."""
    folder = tmp_path / "round_1/sample"
    asked = {
        "train": (rows_of("a", ["same", "same", "long"]), 2),
        "val": (rows_of("b", ["same"], db="x"), 1),
    }
    changes = _prompts.write(folder, asked, seed=5)
    assert changes["actor_rollout_ref"]["rollout"]["seed"] == 5
    written = pq.read_table(changes["data"]["val_files"]).to_pylist()
    assert [row["row_id"] for row in written] == [
        "train-0-0", "train-0-1", "train-1-0", "train-1-1", "train-2-0", "train-2-1", "val-0-0",
    ]  # fmt: skip
    (folder / "validation").mkdir(parents=True)
    dump = [
        {"row_id": i, "output": i, "score": 0.5, "acc": 1.0}
        for i in reversed([r["row_id"] for r in written])
    ]
    dump = [d for d in dump if "train-2" not in d["row_id"]]
    (folder / "validation/0.jsonl").write_text("".join(json.dumps(d) + "\n" for d in dump))
    answers = _samples.read(folder)
    outputs = [[x["output"] for x in group] for group in answers["train"]]
    assert outputs == [["train-0-0", "train-0-1"], ["train-1-0", "train-1-1"]]
    assert answers["val"][0][0]["data_source"] == "b"
    _samples.save(answers["val"], tmp_path / "validation/3.jsonl")
    saved = json.loads((tmp_path / "validation/3.jsonl").read_text())
    assert saved["step"] == 3 and saved["output"] == "val-0-0"


def test_held_out_metrics_have_verls_names_and_values():
    """Beside verl's own function on the same answers; a part that was not graded counts in neither."""
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    infos = [{"reward": 1.0, "acc": 1.0, "executed": 1.0}, {"reward": 0.0, "acc": 0.0, "executed": None},
             {"reward": 0.1, "acc": 0.0, "executed": 1.0}, {"reward": 0.5, "acc": 1.0, "executed": 0.0}]  # fmt: skip
    sources = ["a", "a", "b", "a"]
    groups = [
        [info | {"data_source": s, "outcome": "text"}]
        for info, s in zip(infos, sources, strict=True)
    ]
    ours = dict(_samples.held_out(groups, 1))
    columns = {part: [info[part] for info in infos] for part in infos[0]}
    theirs = process_validation_metrics(sources, list("wxyz"), columns)
    assert ours == pytest.approx({
        f"val-{'core' if part == 'acc' else 'aux'}/{source}/{part}/{name}": value
        for source, by_part in theirs.items() for part, metrics in by_part.items() for name, value in metrics.items()
    })  # fmt: skip
    rewards_only = [[{"reward": 0.25, "data_source": "c"}]]
    assert dict(_samples.held_out(rewards_only, 1)) == {"val-core/c/reward/mean@1": 0.25}


def stage_with_model(run, number: int) -> None:
    step = run / f"round_{number}/dpo/checkpoints/global_step_7"
    (step / "huggingface").mkdir(parents=True)
    (step / "huggingface/config.json").write_text("{}")
    (step / "optim.pt").write_text("large")
    (step.parent / "global_step_3").mkdir()
    (step.parent / "global_step_3/optim.pt").write_text("large")
    (run / f"round_{number}/dpo/checkpoints/latest_checkpointed_iteration.txt").write_text("7")


def test_the_last_models_are_kept_and_found(tmp_path):
    for number in (1, 2, 3):
        stage_with_model(tmp_path, number)
        stages.publish(tmp_path / f"round_{number}/dpo", tmp_path, number, keep=2)
        assert (latest_model(tmp_path) / "config.json").exists()
        assert latest_model(tmp_path).parent.name == f"global_step_{number}"
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("g*")) == [
        "global_step_2",
        "global_step_3",
    ]
    assert not list(tmp_path.rglob("optim.pt"))
    assert not (tmp_path / "round_1/dpo/checkpoints").exists()
    stage_with_model(tmp_path, 4)
    shutil.rmtree(tmp_path / "round_2/dpo/checkpoints")  # as if the run was cut while it did that
    stages.publish(tmp_path / "round_4/dpo", tmp_path, 4, keep=2)
    steps = sorted(int(p.name.rpartition("_")[2]) for p in (tmp_path / "checkpoints").glob("g*"))
    assert steps == [3, 4]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert (latest_model(moved) / "config.json").exists()  # a run's folder may move


class Cut(Exception):
    """What ends a start of a run."""


class Stages:
    """Stands for launcher.stages.run: a stage whose answers and losses come of what it was given alone.

    Args:
        cut: a start is cut before its stage of this number (0.5 behind it, while its end is not written down yet).
    """

    def __init__(self, cut: float):
        self.cut, self.done = cut, 0

    def run(self, folder, algo, changes) -> None:
        if self.done == self.cut:
            raise Cut
        self.done += 1
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        model = str(changes["lab"]["model"]["path"]).partition("/run/")[2]
        if algo == "self_play":
            seed = changes["actor_rollout_ref"]["rollout"]["seed"]
            ids = [
                row["row_id"] for row in pq.read_table(folder.with_suffix(".parquet")).to_pylist()
            ]
            answers = [
                zlib.crc32(f"{i} {model} {'' if 'val' in i else seed}".encode()) for i in ids
            ]
            lines = [{"row_id": i, "output": str(a), "score": a % 7 / 6, "acc": a % 2}
                     for i, a in zip(ids, answers, strict=True)]  # fmt: skip
            (folder / "validation").mkdir(exist_ok=True)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "validation/0.jsonl").write_text(text)
        else:
            stage_with_model(folder.parents[1], int(folder.parent.name.removeprefix("round_")))
            pairs = str(pq.read_table(changes["data"]["train_files"]).to_pylist())
            loss = {"train/loss": zlib.crc32(f"{model} {pairs}".encode()) / 2**32}
            (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "data": loss}) + "\n")
        if self.done == self.cut + 0.5:
            raise Cut
        now = "2026-01-01T00:00:00"
        ended = {"attempts": [{"start": now, "end": now, "exit": 0}]}
        (folder / "run.json").write_text(json.dumps(ended))


@pytest.mark.parametrize("test_freq", [1, 2])
def test_a_run_that_was_cut_anywhere_ends_as_one_without_a_cut(
    composer, sql_demo, tmp_path, monkeypatch, test_freq
):
    """Cut before each stage, and behind it; and ended after each round, then asked for more of them."""

    def start(place, cut: float, rounds: int = 3) -> None:
        folder = tmp_path / place / "run"
        config = composer("algo=self_play", f"lab.dataset.dir={sql_demo}",
                          f"trainer.total_training_steps={rounds}", f"trainer.test_freq={test_freq}",
                          "self_play.prompts=6", "lab.dataset.val_max_samples=4")  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(stages, "composed", lambda _: OmegaConf.create({"lab": {}}))
        monkeypatch.setattr(stages, "run", Stages(cut).run)
        OmegaConf.update(config, "lab.run_dir", str(folder))
        play = self_play.SelfPlay(config)
        play.records.logger = SimpleNamespace(log=lambda data, step: logged(folder, data, step))
        with contextlib.suppress(Cut):
            play.run()

    def logged(folder, data: dict, step: int) -> None:
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "data": data}) + "\n")

    def made(place) -> dict:
        """All that a run has at its end."""
        folder = tmp_path / place / "run"
        files = [*folder.glob("rollouts/*"), *folder.glob("validation/*"), folder / "metrics.jsonl"]
        texts = {str(file.relative_to(folder)): file.read_text() for file in files}
        links = {link.name: os.readlink(link) for link in folder.glob("checkpoints/global_step_*")}
        return texts | links | {"last": latest_model(folder).relative_to(folder)}

    start("whole", -1)
    whole = made("whole")
    assert {f"rollouts/{t}.jsonl" for t in (1, 2, 3)} <= whole.keys()
    assert read_metrics(tmp_path / "whole/run/metrics.jsonl").keys() >= {1, 2, 3}
    for cut in [half / 2 for half in range(14)]:  # of seven stages
        start(f"cut_{cut}", cut)
        start(f"cut_{cut}", -1)
        assert made(f"cut_{cut}") == whole, cut
    for rounds in (1, 2):
        start(f"ended_{rounds}", -1, rounds)
        start(f"ended_{rounds}", -1)
        more = made(f"ended_{rounds}")
        if test_freq == 2 and rounds == 1:  # it has validated its last round, too
            assert more.pop("validation/1.jsonl")
            more["metrics.jsonl"] = whole["metrics.jsonl"]
        assert more == whole, rounds


def test_a_stage_that_fails_says_why(tmp_path, tiny_model, capfd):
    changes = {"lab": {"model": {"path": str(tiny_model)}}, "dpo": {"betta": 1.0}}
    with pytest.raises(
        stages.StageError, match=r"exit status 2; .* error: unknown key 'dpo\.betta'"
    ):
        stages.run(tmp_path / "round_1/dpo", "dpo", OmegaConf.create(changes))
    assert "[stage] error:" in capfd.readouterr().out
    assert not stages.finished(tmp_path / "round_1/dpo")


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("self_play.pairs_per_prompt=5", "needs twice as many answers"),
        ("self_play.margin=-1", "not a number, 0 or more"),
        ("self_play.beta=0", "not a number above 0"),
        ("self_play.beta=x", "not a number above 0"),
        ("self_play.pairs_per_prompt=1.5", "not a whole number, 1 or more"),
        ("trainer.total_training_steps=0", "the number of rounds"),
        ("+self_play.train.dpo.lossy=ipo", "Did you mean dpo.loss?"),
        ("+self_play.train.nothing=1", "algo=dpo has no such key"),
        ("+self_play.train.optim.weight_decay=0.1", None),
        ("+self_play.train.model.override_config.anything=1", None),
        ("lab.seed=1", None),
    ],
)
def test_mistakes_of_the_second_stage_are_found_before_the_first(composer, override, text):
    from preflight.checks.self_play import check_self_play

    said = check_self_play(composer("algo=self_play", override))
    assert said is None if text is None else text in said


def test_both_readings_of_gspo_are_explained():
    assert "Group Sequence Policy Optimization" in groups()["algo"]["self_play"]
    assert "gspo" in groups()["algo"]["self_play"]


def test_pairing_needs_no_torch():
    """The driver imports verl for its loggers alone, and late."""
    import subprocess

    code = "import sys, algos.self_play; sys.exit('torch' in sys.modules or 'verl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
