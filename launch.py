"""Run one job, or a sweep with -m: compose the config, check it, write it down, start verl.

    python launch.py algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    python launch.py                    GRPO with model=tiny on this CPU; it says what to run before
    python launch.py --help             all groups and their options
    python launch.py --cfg job          the whole config, without running anything
    python launch.py -m algo=grpo,rloo  one job after another, each in its own process and folder
    python launch.py resume=RUN         go on with a run from its last checkpoint

Any key of verl can be set as well: `actor_rollout_ref.actor.optim.lr=1e-6`.
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher import results, resume
from preflight import names, prepare, resolvers, reward_keys
from preflight.mistakes import Mistake

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to `start`, which prints a line or two
resolvers.register()
ended: list[results.EndedJob] = []


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """Check and run one composed config."""
    from launcher import child  # --cfg job doesn't wait for these

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    reward_keys.gather(config, HydraConfig.get().overrides.task)
    past = resume.Past(run_dir) if (run_dir / resume.RESOLVED).exists() else None
    try:
        config = past.go_on(config) if past else config
        expected = prepare(config, show=print)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        ended.append(results.EndedJob(run_dir, 2))
        return
    OmegaConf.resolve(config)
    for root in config.lab.trainer.unused:
        OmegaConf.set_struct(config, False)
        config.pop(root, None)
    if past:
        past.keep()
    OmegaConf.save(config, run_dir / resume.RESOLVED)
    print(f"{config.lab.name} → {os.path.relpath(run_dir)}", flush=True)
    print(past.report() if past else "", end="", flush=True)
    attempt = results.Attempt(run_dir, sys.argv, config, expected)
    code = 130  # if Ctrl-C comes
    try:
        code = child.run(config, run_dir)
    finally:
        attempt.end(code)
        ended.append(results.EndedJob(run_dir, code))
    print(results.summary(run_dir, code, config.lab.stall_timeout_s, attempt.log_begin), flush=True)


def start(argv: list[str]) -> int:
    """The whole command line; returns the exit status."""
    if "--help" in argv or "-h" in argv:
        print(__doc__ + "\n" + names.describe())
        return 0
    if names.MULTIRUN.intersection(argv):
        os.environ[results.STAGE] = "1"
    try:
        sys.argv[1:] = resume.arguments(argv)
        job()
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {names.explain(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that can't be written, a full disk
        print(f"error: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; everything that was started has ended", file=sys.stderr)
        return 130
    if len(ended) > 1 or names.MULTIRUN.intersection(argv):
        print(results.jobs_table(ended))
    return max((one.code for one in ended), default=0)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
