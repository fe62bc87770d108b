"""Self-play: a model learns from its own answers, ranked by the reward, in rounds of sampling and DPO.

Source: iterative DPO, Xiong et al., arXiv:2312.11456, and the loop of Yuan et al., Self-Rewarding
Language Models, arXiv:2401.10020, with the run's reward as the judge. In round t the model M_t
samples n answers to each of its prompts (_prompts.py, _samples.py); these are paired, best with
worst (_pairing.py); M_t+1 is M_t after DPO on the pairs of this round, with M_t as the reference.

Each stage is a run of launch.py (launcher/stages.py): RUN/round_1/sample, RUN/round_1/dpo, ..., and after
the last round RUN/round_N/validate. Held-out prompts go along with the sampling of the round after,
which saves a start. A step of the metrics is a round: scores of its answers, its pairs, the end of
its DPO, held-out accuracy after it. `resume=RUN` repeats no stage that has ended well.
What configures a stage: all of `lab.*` both, `self_play.train.*` (keys of algo=dpo) the DPO, all
else the sampling. The last `trainer.max_actor_ckpt_to_keep` models are kept.

Degenerate cases: a round without a single pair is an error. Not covered: answers of several turns;
answers cut at their maximal length are trained on as if they ended there.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from algos import _pairing, _prompts, _samples
from launcher import stages
from launcher.checkpoints import latest_model
from launcher.metrics import read_metrics


class SelfPlay:
    """A run of self-play: its resolved config, and its folder."""

    def __init__(self, config: DictConfig):
        self.config, self.rollout = config, config.actor_rollout_ref.rollout
        self.dir, self.rounds = Path(config.lab.run_dir), config.trainer.total_training_steps
        self.raw = stages.composed(self.dir)  # with interpolations
        self.records = stages.Records(config)

    def run(self) -> None:
        """All rounds that are still to do."""
        record = {}  # of the round before: complete with the next one's sampling
        for t in range(max(self.records.steps(), default=0) + 1, self.rounds + 1):
            answers, held_out = self.sample(t)
            self.records.log(t - 1, record | held_out)
            record = self.train(t, answers)
        if record:
            self.records.log(self.rounds, record | self.sample(self.rounds + 1)[1])

    def run_stage(self, t: int, folder: Path, algo: str, what: str, base, changes: dict) -> None:
        """Run a stage of round t: `base`, with `changes` and the model that the round begins with."""
        stages.message(f"round {min(t, self.rounds)} of {self.rounds}: {what}")
        before, model = self.dir / f"round_{t - 1}/dpo", self.config.actor_rollout_ref.model.path
        model = model if t == 1 else str(latest_model(before))
        name = f"{self.config.lab.name}-{folder.parent.name}-{folder.name}"
        lab = {"name": name, "model": {"path": model}, "check_data": False}
        stages.run(folder, algo, OmegaConf.merge(base, {"lab": lab}, changes))

    def sample(self, t: int) -> tuple[list[list[dict]], dict]:
        """The answers to each prompt of round t, and held-out metrics of the model it begins with."""
        config, data, steps = self.config, self.config.data, self.records.steps()
        last, every, asked = t > self.rounds, config.trainer.test_freq, {}
        if not last:
            rows = _prompts.read(data.train_files, data.train_max_samples, data)
            chosen = _prompts.share(len(rows), config.self_play.prompts, t, config.lab.seed)
            asked["train"] = rows.take(chosen), self.rollout.n
        due = every > 0 and (last or (t - 1) % every == 0)
        due = config.trainer.val_before_train if t == 1 else due
        if due and t - 1 not in steps:
            rows = _prompts.read(data.val_files, data.val_max_samples, data)
            asked["val"] = rows, self.rollout.val_kwargs.n
        if not asked:
            return [], {}
        folder = self.dir / (f"round_{t - 1}/validate" if last else f"round_{t}/sample")
        if not stages.finished(folder):
            what = {"train": "{1} answers to each of {0} prompts", "val": "validation on {0}"}
            each = [what[kind].format(len(rows), n) for kind, (rows, n) in asked.items()]
            changes = _prompts.write(folder, asked, _prompts.round_seed(config.lab.seed, t))
            self.run_stage(t, folder, "self_play", ", ".join(each), self.raw, changes)
        answers = _samples.read(folder)
        _samples.save(answers["train"], self.dir / f"rollouts/{t}.jsonl")
        _samples.save(answers["val"], self.dir / f"validation/{t - 1}.jsonl")
        return answers["train"], dict(_samples.held_out(answers["val"], self.rollout.val_kwargs.n))

    def train(self, t: int, answers: list[list[dict]]) -> dict:
        """DPO on the pairs of round t; returns the round's metrics."""
        folder, options = self.dir / f"round_{t}/dpo", self.config.self_play
        rows, counts = _pairing.make_pairs(answers, options.pairs_per_prompt, options.margin)
        if not stages.finished(folder):
            base = stages.shared(self.raw)
            changes = _pairing.write_pairs(folder, rows, self.config)
            self.run_stage(t, folder, "dpo", f"DPO on {len(rows)} pairs", base, changes)
        stages.publish(folder, self.dir, t, self.config.trainer.max_actor_ckpt_to_keep)
        last = max(read_metrics(folder / "metrics.jsonl").items())[1]
        return {
            "training/global_step": t,
            "timing_s/step": sum(stages.seconds(folder.with_name(s)) for s in ("sample", "dpo")),
            **_samples.summary(answers),
            **{f"self_play/{name}": count for name, count in counts.items()},
            **{f"dpo/{name.removeprefix('train/')}": value for name, value in last.items()},
        }


@hydra.main(config_path=None, version_base=None)
def main(config: DictConfig) -> None:
    """The entry point, on RUN/resolved.yaml."""
    try:
        SelfPlay(config).run()
    except stages.StageError as error:  # no traceback: it would say nothing of the stage
        sys.exit(f"StageError: {error}")


if __name__ == "__main__":
    main()
