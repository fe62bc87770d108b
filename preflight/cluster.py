"""Where a run goes: it begins on this machine, or is handed to a cluster (`cluster=`), whose job begins it there."""

import os

from omegaconf import DictConfig, OmegaConf

NONE = "none"
JOB = "LAB_JOB"  # in the environment of a cluster's job: a start in it is the run itself


def engine(config: DictConfig) -> str:
    """The cluster that this start hands the run to; NONE: it begins here."""
    return NONE if os.environ.get(JOB) else OmegaConf.select(config, "lab.cluster.name") or NONE


def begins_here(config: DictConfig) -> bool:
    """Whether this start is the run itself. A run of an older version names no cluster."""
    return engine(config) == NONE
