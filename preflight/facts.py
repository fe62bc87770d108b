"""Facts about a composed config that several checks, the plan and the tools need."""

from omegaconf import DictConfig


def is_rl(config: DictConfig) -> bool:
    """Whether the run samples answers and scores them; else it learns from given ones, under torchrun."""
    return config.lab.trainer.kind == "rl"
