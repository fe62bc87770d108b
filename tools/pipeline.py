"""Stages of training, each from the model of the one before: SFT, then DPO; or SFT, a reward model, PPO; ...

    python -m tools.pipeline sft dpo
    python -m tools.pipeline sft rm ppo logger=wandb lab.lora_rank=16 ppo:trainer.total_training_steps=200
    python -m tools.pipeline sft grpo grpo:reward=judge --dir outputs/mine

A stage is an algorithm (conf/algo) or a preset (conf/experiment). KEY=VALUE is an override of launch.py for every
stage (reward=... for those that have a reward), STAGE:KEY=VALUE for one. A reward model (rm, prm) begins with the
last policy, as all stages do, and is none itself: the RL stages after it have it as their reward, unless one is
named for them. Stages are checked before the first one starts. The same command with the same --dir repeats no
stage that has ended well, and goes on with one that was cut.
"""

import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from launcher import ends
from launcher.results import STAGE, EndedJob, jobs_table, next_commands
from launcher.stages import finished
from preflight import names, prepare, resolvers
from preflight.mistakes import Mistake
from tools import Parser

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"


class Stage:
    """One stage: what launch.py is told, and what comes of it.

    Args:
        name: an algorithm or a preset.
        folder: of its run.
        common: overrides of all stages; a `reward=` is for those that score.
        own: overrides of this stage.
        rewards: reward models that the stages before it make.
        first: the model that the first stage begins with; None for the first stage.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        common: list[str],
        own: list[str],
        rewards: dict[str, Path],
        first: str | None,
    ):
        group = next((g for g in ("algo", "experiment") if name in names.groups()[g]), None)
        if group is None:
            known = [*names.groups()["algo"], *names.groups()["experiment"]]
            raise Mistake(names.unknown("stage", name, known))
        self.name, self.folder = name, folder
        scores = "actor_rollout_ref" in names.composed([f"{group}={name}"])
        common = [override for override in common if scores or not override.startswith("reward")]
        self.overrides = names.check_argv([f"{group}={name}", *common, *own])
        start = (
            [f"lab.model.path={names.quoted(first)}"] if first else []
        )  # stands for what isn't there yet
        config = names.composed([*self.overrides, *start, "lab.check_data=false"])
        self.begins_with = config.lab.model.path
        self.makes = config.lab.trainer.makes_reward
        named = any(override.startswith("reward=") for override in self.overrides)
        if scores and rewards and not named:
            reward, path = list(rewards.items())[-1]
            self.overrides += [f"reward={reward}", f"lab.reward_model.path={names.quoted(path)}"]
        else:
            prepare(config)  # all but what the stages before it will leave

    def run(self, policy: Path | None) -> int:
        """Run it, or go on with it; returns the exit status."""
        begun = (self.folder / "resolved.yaml").exists()
        where = f"resume={self.folder}" if begun else f"hydra.run.dir={names.quoted(self.folder)}"
        model = [f"lab.model.path={names.quoted(policy)}"] if policy else []
        command = [sys.executable, str(LAUNCH), *self.overrides, *model, where]
        process = subprocess.Popen(
            command, env=os.environ | {STAGE: "1"}, preexec_fn=ends.go_with_parent
        )
        while True:
            try:
                return process.wait()
            except ends.Ended as stop:  # the run ends what it has started
                process.send_signal(stop.number)


def plan(given: list[str], folder: Path) -> list[Stage]:
    """The stages that the arguments name, checked. Raises Mistake."""
    chosen = [word for word in given if "=" not in word]
    if not chosen:
        raise Mistake("no stage is named: python -m tools.pipeline sft dpo")
    common, own = [], {name: [] for name in chosen}
    for word in (word for word in given if "=" in word):
        match = re.match(r"(\w+):([^=]+=.*)", word)
        if match and match[1] not in own:
            raise Mistake(names.unknown("stage", match[1], own))
        (own[match[1]] if match else common).append(match[2] if match else word)
    stages, rewards = [], {}
    for number, name in enumerate(chosen, 1):
        place = folder / f"{number}_{name}"
        try:
            first = stages[0].begins_with if stages else None
            stage = Stage(name, place, common, own[name], rewards, first)
        except (Mistake, HydraException, OmegaConfBaseException) as error:
            told = error if isinstance(error, Mistake) else names.explain(error)
            raise Mistake(f"stage {name}: {told}") from None
        stages.append(stage)
        if stage.makes:
            rewards[stage.makes] = place
    return stages


def run(stages: list[Stage]) -> int:
    """All stages that are still to do; the exit status of the last one that ran."""
    policy, jobs = None, []
    for number, stage in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {stage.name}", flush=True)
        code = 0
        if finished(stage.folder):
            print(f"is done: {stage.folder}")
        else:
            code = stage.run(policy)
        jobs.append(EndedJob(stage.folder, code))
        if code:
            break
        if not stage.makes:
            policy = stage.folder
    print(jobs_table(jobs))
    if not code:
        print("\n".join(["", *next_commands(stage.folder)]))
    if code:
        print(f"\nstage {stage.name} ended with exit status {code}; with --dir {stage.folder.parent} the same"
              " command goes on from here", file=sys.stderr)  # fmt: skip
    return code


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m tools.pipeline",
        description=__doc__,
    )
    parser.add_argument("words", nargs="*", metavar="STAGE | KEY=VALUE | STAGE:KEY=VALUE")
    place = Path("outputs/pipeline") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parser.add_argument("--dir", type=Path, default=place, help="folder (%(default)s)")
    args = parser.parse_intermixed_args(argv)
    resolvers.register()
    try:
        stages = plan(args.words, args.dir)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    ends.heed()
    return run(stages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
