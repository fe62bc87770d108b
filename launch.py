"""Run one job, or a sweep with -m: compose the config, check it, write it down, start verl.

    python launch.py algo=grpo model=qwen2_5_coder_1_5b hw=rtx4070 reward=sql dataset=spider
    python launch.py                    the demo's GRPO on this CPU
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

from launcher import results
from preflight import names, resolvers
from preflight.checks import refuse
from preflight.mistakes import Mistake

ROOT = Path(__file__).resolve().parent
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to `start`, which tells them in a line or two
resolvers.register()
finished: list[results.Result] = []


def starts_ray(config: DictConfig) -> bool:
    """Whether the run starts a Ray of its own, and doesn't join one."""
    return "ray_kwargs" in config and not OmegaConf.select(config, "ray_kwargs.ray_init.address")


def command(config: DictConfig, run_dir: Path, folder: str, python: str | None) -> list[str]:
    """verl's own entry point on resolved.yaml; only what belongs to this one start is added."""
    entry = [config.lab.entry, "--config-path", str(run_dir), "--config-name", "resolved"]
    entry += [f"hydra.run.dir={run_dir}", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
    if config.lab.spmd:
        workers = f"--nproc_per_node={config.lab.hw.gpus_per_node}"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", workers]
        return [*torchrun, "-m", *entry]
    if starts_ray(config):
        entry += [f"++ray_kwargs.ray_init._temp_dir={folder}"]
    if python:
        entry += [f"++ray_kwargs.ray_init.runtime_env.py_executable={python}"]
    return [sys.executable, "-m", *entry]


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """Check and run one composed config."""
    from launcher import supervisor  # --cfg job doesn't wait for these
    from launcher.progress import Progress
    from preflight.memory.forecast import forecast

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        expected = forecast(config)
        refuse(config)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        finished.append(results.Result(run_dir, 2))
        return
    OmegaConf.resolve(config)
    for root in config.lab.unused:
        OmegaConf.set_struct(config, False)
        config.pop(root, None)
    OmegaConf.save(config, run_dir / "resolved.yaml")
    total = results.total_steps(config)
    print(f"{config.lab.name} → {os.path.relpath(run_dir)}", flush=True)
    env = os.environ | {k: str(v) for k, v in config.lab.env.items()}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    attempt = results.Attempt(run_dir, sys.argv, config, expected)
    code = 130  # if Ctrl-C comes
    try:
        code = supervisor.run(
            lambda folder, python: command(config, run_dir, folder, python),
            run_dir,
            env,
            Progress(run_dir, "sft" if config.lab.spmd else "rl", total, config.lab.keep_best),
            config.lab.stall_timeout_s,
            fork=config.lab.hw.prefork and starts_ray(config),
        )
    finally:
        attempt.end(code)
        finished.append(results.Result(run_dir, code))
    print(results.report(run_dir, code, config.lab.stall_timeout_s, attempt.log_begin), flush=True)


def start(argv: list[str]) -> int:
    """The whole command line; returns the exit status."""
    if "--help" in argv or "-h" in argv:
        print(__doc__ + "\n" + names.describe())
        return 0
    try:
        sys.argv[1:] = names.check_argv(argv)
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
    if len(finished) > 1 or "-m" in argv or "--multirun" in argv:
        print(results.table(finished))
    return max((result.code for result in finished), default=0)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
