"""Run one job, or a sweep with -m: compose the config, check it, write it down, start verl.

    python launch.py algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    python launch.py                    GRPO with model=tiny on this CPU; it says what to run before
    python launch.py --help             all groups and their options
    python launch.py --cfg job          the whole config, without running anything
    python launch.py -m algo=grpo,rloo  one job after another, each in its own process and folder
    python launch.py resume=RUN         go on with a run from its last checkpoint
    python launch.py --from-script F    the command for a shell script of verl (- reads standard input)

Any key of verl can be set as well: `actor_rollout_ref.actor.optim.lr=1e-6`.
"""

import contextlib
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher import ends, folders, results, resume
from preflight import facts, names, prepare, resolvers, reward_keys
from preflight.mistakes import Mistake, near

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to `start`, which prints a line or two
resolvers.register()
ended: list[results.EndedJob] = []
asked: Path | None = None  # the run that this start goes on with


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """Check and run one composed config."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    ended.append(results.EndedJob(run_dir, 2, " ".join(HydraConfig.get().overrides.task)))
    try:
        with folders.taken(run_dir):
            run(config, run_dir)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)


def run(config: DictConfig, run_dir: Path) -> None:
    """Run it, or go on with it, in a folder that nobody else has. Raises Mistake if it can't go well."""
    from launcher import child, supervisor  # --cfg job doesn't wait for them

    past, composed = resume.past(run_dir, asked), config.copy()
    reward_keys.gather(config, HydraConfig.get().overrides.task)
    config = past.go_on(config) if past else config
    expected = prepare(config, show=print)
    OmegaConf.resolve(config)
    for root in config.lab.trainer.unused:
        OmegaConf.set_struct(config, False)
        config.pop(root, None)
    with folders.taken(folders.of_checkpoints(config, run_dir)):
        past.keep() if past else resume.write_down(run_dir, composed)
        OmegaConf.save(config, run_dir / resume.RESOLVED)
        print(f"{config.lab.name}{facts.of_sweep(sys.argv)} → {near(run_dir)}", flush=True)
        print(past.report() if past else "", end="", flush=True)
        attempt = results.Attempt(run_dir, sys.argv, config, expected)
        memory = supervisor.Memory()
        try:
            ended[-1].code = child.run(config, run_dir, memory, attempt.watch)
        except KeyboardInterrupt as stop:
            ended[-1].code = ends.status(stop)
            raise
        finally:
            attempt.end(ended[-1].code, memory.peak)
    told = run_dir, ended[-1].code, config.lab.stall_timeout_s, attempt.log_begin, attempt.kills
    print(results.summary(*told), flush=True)


def start(argv: list[str]) -> int:
    """The whole command line; returns the exit status."""
    if "--help" in argv or "-h" in argv:
        print(__doc__ + "\n" + names.describe())
        return 0
    if names.MULTIRUN.intersection(argv):
        os.environ[results.STAGE] = "1"
    global asked
    asked = names.resumed(argv)
    folders.note_new_ones()
    ends.heed()
    try:
        if any(names.split(arg)[0] == "--from-script" for arg in argv):
            from preflight import scripts

            print(scripts.show(argv))
            return 0
        sys.argv[1:] = resume.arguments(argv)
        job()
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {names.explain(error, sys.argv[1:])}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that can't be written, a full disk
        print(f"error: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        with contextlib.suppress(OSError):  # the terminal is closed
            print("\nstopped; everything that was started has ended", file=sys.stderr)
            print(*(results.how_to_go_on(one.run_dir) for one in ended[-1:]), file=sys.stderr)
        return ends.status(stop)
    finally:
        folders.remove_unused()
    if len(ended) > 1 or names.MULTIRUN.intersection(argv):
        print(results.jobs_table(ended))
    return max((one.code for one in ended), default=0)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
