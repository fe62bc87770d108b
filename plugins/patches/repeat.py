"""A patch of verl 0.9.1, so that RUN/resolved.yaml and verl's own entry point repeat a run in a folder of their own."""

import functools

OUTPUTS = (
    "lab",
    "trainer",
    "reward",
    "ray_kwargs",
)  # roots of the config with paths that are written to


def move_outputs(device) -> None:
    """verl/trainer/main_ppo.py:136, main: writes into the folder that the config was made for.

    So `python -m verl.trainer.main_ppo --config-path RUN --config-name resolved` went on with RUN itself, from its
    last checkpoint. Hydra's folder says where a run lies, as for launch.py: what RUN/resolved.yaml has below RUN goes
    there. main calls auto_set_device(config) first. SFT needs variables that are set before, so it is launch.py's.
    """
    auto_set_device = device.auto_set_device

    @functools.wraps(auto_set_device)
    def moved(config):
        from hydra.core.hydra_config import HydraConfig

        auto_set_device(config)
        if HydraConfig.initialized() and "lab" in config and "ray_kwargs" in config:
            there, here = config.lab.run_dir, HydraConfig.get().runtime.output_dir
            for root in OUTPUTS if there != here else ():
                move(config.get(root), there, here)

    device.auto_set_device = moved


def move(node, there: str, here: str) -> None:
    """Change all paths in or below a folder, in place."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if not isinstance(node, DictConfig | ListConfig):
        return
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, str) and f"{value}/".startswith(f"{there}/"):
            node[key] = here + value.removeprefix(there)
        else:
            move(value, there, here)
