"""When a run ends, saves, validates and goes on, and in which of verl's ways it samples."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from launcher import checkpoints
from preflight.checks import applies_to
from preflight.engines import A
from preflight.facts import given, is_driver, is_of_a_sweep, is_rl, is_sft, is_verls_sft, rows_read
from preflight.resolvers import run_dir

EPOCHLY = "after_each_epoch"


def check_frequencies(config: DictConfig) -> str | None:
    """Steps between validations and checkpoints."""
    for key in ("trainer.test_freq", "trainer.save_freq"):
        value = OmegaConf.select(config, key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if is_sft(config) and not (value == EPOCHLY or (whole and value != 0)):
            return f"{key}={value} must be a number of steps, -1 (never) or {EPOCHLY}."
        if is_rl(config) and not whole:
            return f"{key}={value} must be a number of steps, or -1 (never)."
    return None


def check_steps_are_reached(config: DictConfig) -> str | None:
    """Epochs that end a run before its last step: it would end without a checkpoint."""
    steps, have = config.trainer.total_training_steps, rows_read(config, "train")
    if not steps or have is None or is_driver(config):
        return None
    most = have // config.data.train_batch_size * config.trainer.total_epochs
    if most < steps:
        return (f"trainer.total_training_steps={steps} can't be reached: trainer.total_epochs="
                f"{config.trainer.total_epochs} of {have} rows end after {most}. Leave total_epochs out.")  # fmt: skip
    return None


def check_epochs(config: DictConfig) -> str | None:
    """A number of steps decides, where both are given."""
    steps = config.trainer.total_training_steps
    if steps and given("lab.epochs"):
        return f"lab.epochs does nothing with trainer.total_training_steps={steps}: leave one of the two out."
    return None


def check_validation(config: DictConfig) -> str | None:
    """Held-out rows, or nothing that asks for them."""
    if config.data.val_files is not None:
        if is_rl(config) and config.trainer.val_only and not config.trainer.val_before_train:
            return "trainer.val_only=true needs trainer.val_before_train=true: without it the run would train."
        return None
    if is_rl(config):
        return "data.val_files=null: verl always reads validation rows. Set lab.dataset.val=FILE."
    if is_verls_sft(config) and config.trainer.test_freq != -1:
        return (
            f"data.val_files=null, and trainer.test_freq={config.trainer.test_freq}: set it to -1."
        )
    return None


def check_run_dir(config: DictConfig) -> str | None:
    """One place says where a run lies: what runs beside verl looks into Hydra's folder."""
    if config.lab.run_dir != run_dir():
        return f"lab.run_dir={config.lab.run_dir} is only read: hydra.run.dir=FOLDER says where a run lies."
    return None


def check_resume(config: DictConfig) -> str | None:
    """A checkpoint to go on from, named by its folder. verl reads the step off the folder's name."""
    mode, path = config.trainer.resume_mode, config.trainer.resume_from_path
    if path is None and mode == "resume_path":
        return "trainer.resume_mode=resume_path needs trainer.resume_from_path=.../global_step_N."
    if path is None:
        return None
    if mode == "disable" or (mode == "auto" and is_rl(config)):
        return f"trainer.resume_from_path does nothing with trainer.resume_mode={mode}: set resume_path."
    key, folder = f"trainer.resume_from_path={path}", Path(path)
    step = checkpoints.inside(folder) if folder.is_dir() else None
    if step is None or not checkpoints.STEP.fullmatch(step.folder.name):
        return f"{key} is not the folder of a checkpoint, .../global_step_N."
    if step.folder != folder or path.endswith("/"):
        return f"{key}: the folder global_step_N itself is wanted, without a slash behind it: {step.folder}"
    if not is_driver(config) and (why := checkpoints.fault(folder, *loaded(config))):
        return f"{key} is no whole checkpoint: {why}."
    if is_sft(config) and checkpoints.STEP.search(str(folder.parent)):
        return (f"{key}: verl's SFT takes the first global_step_N of a path for the step, and that is"
                f" {checkpoints.STEP.search(path)[0]}: move or link {folder.name} to a place without.")  # fmt: skip
    return None


def check_checkpoints(config: DictConfig) -> str | None:
    """The folder of the checkpoints is this run's: verl goes on from any that it finds there, and removes old ones."""
    key, folder, run = (
        "trainer.default_local_dir",
        Path(config.trainer.default_local_dir),
        Path(run_dir()),
    )
    found = sorted(folder.glob("global_step_*"))
    if not folder.absolute().is_relative_to(run):
        if (folder.parent / checkpoints.CONFIG).is_file():
            return f"{key}={folder} is the folder of the run {folder.parent}: leave it out, or take another one."
        shared = not OmegaConf.is_interpolation(config.trainer, "default_local_dir")
        if shared and is_of_a_sweep():
            return (f"{key}={folder} is the same for all jobs of a sweep, and each would go on from another's"
                    " checkpoints: leave it out, or let it follow what differs, as '.../${lab.seed}'.")  # fmt: skip
    if found and not is_own(folder, run):
        return (f"{key}={folder} has checkpoints of another run ({found[-1].name}): take an empty folder. To begin"
                " with one of them: trainer.resume_mode=resume_path"
                f" trainer.resume_from_path={found[-1].absolute()}")  # fmt: skip
    if is_sft(config) and (other := checkpoints.STEP.search(str(folder.absolute()))):
        return (f"{key}={folder}: verl's SFT takes {other[0]} in it for the step of each checkpoint: take a name"
                " without global_step_N (hydra.run.dir=FOLDER).")  # fmt: skip
    return None


def loaded(config: DictConfig) -> tuple[dict[str, list[str]], str]:
    """What verl loads of a checkpoint: `needs` and `data` of launcher/checkpoints.py's `fault`."""
    if is_sft(config):
        fsdp, parts = config.engine.strategy.startswith("fsdp"), {".": config}
    else:
        actor = config.actor_rollout_ref.actor
        fsdp, parts = actor.strategy.startswith("fsdp"), {"actor": actor}
        if config.algorithm.adv_estimator == "gae":
            parts["critic"] = config.critic
    needs = {name: list(node.checkpoint.load_contents) * fsdp for name, node in parts.items()}
    return needs, "data_0.pt" if is_sft(config) else "data.pt"


def is_own(folder: Path, run: Path) -> bool:
    """Whether a run that goes on has had its checkpoints in this folder before."""
    file = run / checkpoints.CONFIG
    if not file.is_file():
        return False
    if folder.absolute().is_relative_to(run):
        return True
    return str(OmegaConf.select(OmegaConf.load(file), "trainer.default_local_dir")) == str(folder)


@applies_to(is_rl)
def check_v1(config: DictConfig) -> str | None:
    """verl's old trainer, which the plugins of this project don't know."""
    if not config.trainer.use_v1:
        return "trainer.use_v1=false is verl's old trainer, without step rewards, masks and limits: leave it out."
    return None


@applies_to(is_rl)
def check_async(config: DictConfig) -> str | None:
    """Sampling while training (trainer.v1.trainer_mode), and what it asks for."""
    if config.trainer.v1.trainer_mode != "separate_async":
        return None
    prompts, rollout = config.data.train_batch_size, config[A].rollout
    mini, syncs = (
        config[A].actor.ppo_mini_batch_size,
        config.trainer.v1.separate_async.parameter_sync_step,
    )
    if prompts != mini * syncs:
        return (f"separate_async needs data.train_batch_size={prompts} to be {A}.actor.ppo_mini_batch_size={mini} ×"
                f" trainer.v1.separate_async.parameter_sync_step={syncs}: set {mini * syncs}.")  # fmt: skip
    if not rollout.nnodes or not rollout.n_gpus_per_node:
        return f"separate_async samples on nodes of its own: set {A}.rollout.nnodes=1 and n_gpus_per_node."
    if rollout.checkpoint_engine.backend == "naive":
        return f"separate_async sends weights to other GPUs: set {A}.rollout.checkpoint_engine.backend=nccl."
    model = config.reward.reward_model
    if model.enable and not model.enable_resource_pool:
        return "separate_async leaves no time for a reward model on the policy's GPUs: set lab.reward_model.gpus=1."
    return None


@applies_to(is_rl)
def check_filter_groups(config: DictConfig) -> str | None:
    """Dynamic sampling judges groups while it samples."""
    groups = OmegaConf.select(config, "algorithm.filter_groups")
    if not groups or not groups.enable:
        return None
    key, model, sampler = (
        "algorithm.filter_groups",
        config.reward.reward_model,
        config.trainer.v1.sampler,
    )
    if not groups.metric:
        return f"{key}.enable=true needs {key}.metric: acc_or_score, acc, score, or another part of the reward."
    if model.enable and not model.enable_resource_pool:
        return f"{key} needs scores while it samples, and this reward model scores later: set lab.reward_model.gpus=1."
    if config[A].rollout.n < 2:
        return f"{key} replaces groups in which all scores are the same, as always with {A}.rollout.n=1: set n=8."
    if sampler.custom_sampler.path:
        return (
            f"{key} does nothing with trainer.v1.sampler.custom_sampler: leave one of the two out."
        )
    return None


@applies_to(is_sft)
def check_profile(config: DictConfig) -> str | None:
    """The steps of SFT that are profiled."""
    interval = OmegaConf.select(config, "trainer.profile_interval")
    if interval is None:
        return None
    first, last = [*interval, None, None][:2]
    if len(interval) != 2 or last < first or (first < 0 <= last):
        return f"trainer.profile_interval={list(interval)} must be the first and the last step, or [-1, -1]."
    return None


@applies_to(is_rl)
def check_statistics(config: DictConfig) -> str | None:
    """Whoever collects vLLM's figures needs them kept."""
    if not config[A].rollout.disable_log_stats:
        return None
    if config[A].rollout.prometheus.enable or "rl_insight" in config.trainer.logger:
        return f"rollout.prometheus and logger rl_insight need {A}.rollout.disable_log_stats=false."
    return None


def check_devices(config: DictConfig) -> str | None:
    """Keys that a hardware profile sets, and that mean nothing alone."""
    if config.trainer.device != config.lab.hw.device:
        have = config.trainer.device
        return f"trainer.device={have}, but the profile is for {config.lab.hw.device}: choose another hw= instead."
    key, here = "trainer.n_gpus_per_node", config.lab.hw.gpus_per_node
    if is_sft(config) and config.trainer.n_gpus_per_node != here:
        return f"{key}={config.trainer.n_gpus_per_node} does nothing: lab.hw.gpus_per_node={here} workers start."
    return None
