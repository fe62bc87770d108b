"""Run one job, or a sweep with -m: compose the config, check it, write it down, start verl.

    python launch.py algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    python launch.py                    GRPO with model=tiny on this CPU; it says what to run before
    python launch.py --help             all groups and their options
    python launch.py --cfg job          the whole config, without running anything
    python launch.py -m algo=grpo,rloo  one job after another, each in its own process and folder
    python launch.py resume=RUN         go on with a run from its last checkpoint, or with a sweep
    python launch.py ... cluster=slurm  hand it to a cluster; `python launch.py status` shows how it is
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

from launcher import clusters, ends, folders, results, resume, search, sweep
from launcher.progress import StoppedEarly
from preflight import cluster, names, prepare, resolvers, reward_keys
from preflight.mistakes import Mistake, near

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to `start`, which prints a line or two
resolvers.register()
search.register()
ended: list[results.EndedJob] = []
asked: Path | None = None  # the run that this start goes on with


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def job(config: DictConfig) -> int:
    """Check and run one composed config; returns its exit status."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    ended.append(results.EndedJob(run_dir, 2))
    try:
        sweep.take(sweep.folder_of_job())
        with folders.taken(run_dir):
            run(config, run_dir)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
    return ended[-1].code


def run(config: DictConfig, run_dir: Path) -> None:
    """Run it, or go on with it, in a folder that nobody else has. Raises Mistake if it can't go well."""
    from launcher import child, supervisor  # --cfg job doesn't wait for them

    heading = f"{sweep.heading(config.lab.name)} → {near(run_dir)}"
    sweep.refuse_wrong(config)
    of, budget = sweep.folder_of_job(), config.lab.sweep
    if sweep.has_ended(run_dir, heading) or sweep.is_spent(of, budget, heading):
        ended[-1].code = sweep.exit_of(run_dir) or 0
        return
    clusters.refuse_second(run_dir)
    past, composed = resume.past(run_dir, sweep.asked(run_dir) or asked), config.copy()
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
        print(heading, flush=True)
        print(past.report() if past else "", end="", flush=True)
        if not cluster.begins_here(config):
            clusters.hand_over(config, run_dir)
            ended[-1].code = 0
            return
        attempt = results.Attempt(run_dir, sys.argv, config, expected)
        attempt.watch.halving = sweep.halving_of(config, run_dir)
        memory = supervisor.Memory()
        try:
            ended[-1].code = child.run(config, run_dir, memory, attempt.watch)
        except StoppedEarly as early:
            ended[-1].code, attempt.record["stopped_early"] = 0, early.record
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
    if argv[:1] == ["status"]:
        from tools import status

        return status.main(argv[1:])
    global asked
    folders.note_new_ones()
    ends.heed()
    try:
        argv = sweep.arguments(argv)
        asked = names.resumed(argv)
        if any(names.split(arg)[0] == "--from-script" for arg in argv):
            from preflight import scripts

            print(scripts.show(argv))
            return 0
        sys.argv[1:] = resume.arguments(argv)
        job()
        if clusters.handed:
            print(clusters.submit())
        elif names.MULTIRUN.intersection(argv):
            from tools.sweep import of_ended

            print(f"\n{of_ended(ended, sweep.taken)}")
    except (Mistake, HydraException, OmegaConfBaseException, OSError) as error:
        print(f"error: {names.explain(error, sys.argv[1:])}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        with contextlib.suppress(OSError):  # the terminal is closed
            print("\nstopped; everything that was started has ended", file=sys.stderr)
            print(*(sweep.how_to_go_on(one.run_dir) for one in ended[-1:]), file=sys.stderr)
        return ends.status(stop)
    finally:
        folders.remove_unused()
    return max((one.code for one in ended), default=0)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
