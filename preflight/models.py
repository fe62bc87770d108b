"""Facts of a model without loading it: its config.json, from where one is at hand.

A folder's own, that of the hub's cache, or, for a model of conf/model/ that was never downloaded, the `facts`
that its file ships. Never from a model's name. No torch.
"""

import json
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from preflight.names import CONF
from preflight.resolvers import HUB_ID


def trained(config: DictConfig) -> str:
    """Path or hub id of the model that a run trains."""
    return OmegaConf.select(
        config, "model.path" if config.lab.spmd else "actor_rollout_ref.model.path"
    )


def hub_file(path: str, name: str) -> Path | None:
    """A file of a hub's model, if it was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, name)
    return Path(found) if isinstance(found, str) else None


def file_of(path: str, name: str) -> Path | None:
    """A file of a model: in its folder, or in the hub's cache; None if it is not on this machine."""
    folder = Path(path)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    return hub_file(path, name) if HUB_ID.fullmatch(path) else None


def facts_of(path: str) -> dict | None:
    """The model's config.json as a dict; None if nothing is known of it."""
    if file := file_of(path, "config.json"):
        return json.loads(file.read_text())
    for shipped in sorted((CONF / "model").glob("*.yaml")):
        model = yaml.safe_load(shipped.read_text())
        if model.get("path") == path:
            return model.get("facts")
    return None
