"""The options of reward=judge, checked, and the one secret, which is read and never kept.

Nothing here says in an error what a user may have put into the wrong place: a key as the variable's
name, a password in a URL.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from types import NoneType
from typing import get_args
from urllib.parse import urlsplit

import yaml

from rewards._judge.text import names_in
from rewards._options import check_number

DEFAULTS = yaml.safe_load((Path(__file__).parent.parent / "judge.yaml").read_text(encoding="utf-8"))
OURS = {"model", "messages", "stream", "n"}  # of a request: not for `sampling`
LEAST = {"attempts": 1, "concurrency": 1, "max_calls": 0, "give_up_after": 1, "backoff_s": 0}
MASK = "***"


def _plain(value):
    """Lists and mappings of a config (OmegaConf's) as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value


@dataclass(frozen=True)
class Settings:
    """`rewards.judge` documents the options and holds their defaults. `sampling` is JSON here."""

    base_url: str | None
    model: str
    api_key_env: str | None
    system: str
    template: str
    scale: tuple
    sampling: str
    concurrency: int
    requests_per_minute: float | None
    attempts: int
    backoff_s: float
    timeout_s: float
    total_timeout_s: float
    folder: str | None
    max_calls: int | None
    give_up_after: int | None

    def __post_init__(self):
        if not isinstance(self.model, str) or not self.model:
            raise ValueError("model: name the judge, as its server calls it")
        if self.api_key_env is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env takes the NAME of an environment variable, not a key")
        for field in fields(self):
            kinds, value = get_args(field.type) or (field.type,), getattr(self, field.name)
            if {int, float} & set(kinds) and not (value is None and NoneType in kinds):
                check_number(field.name, value, LEAST.get(field.name, 1e-6), whole=int in kinds)
        if len(self.scale) != 2 or not self._is_range():
            raise ValueError("scale must be two numbers, the worst score and the best: [0, 10]")
        sampling = json.loads(self.sampling)
        if not isinstance(sampling, dict) or OURS & sampling.keys():
            raise ValueError(f"sampling must be a mapping, without {', '.join(sorted(OURS))}")
        if "response" not in self.names:
            raise ValueError("template: it shows no {{response}}, so nothing would be judged")
        self.url  # noqa: B018 it is checked when it is read

    def _is_range(self) -> bool:
        numbers = all(type(end) in (int, float) and math.isfinite(end) for end in self.scale)
        return numbers and self.scale[0] < self.scale[1]

    @cached_property
    def names(self) -> set[str]:
        """The fields that the texts use."""
        return names_in(self.system) | names_in(self.template)

    @cached_property
    def url(self) -> str:
        """Where to post. ValueError if there is none, or if it isn't plain."""
        base = self.base_url
        if not base:
            raise ValueError(
                "base_url: where is the judge (https://HOST/v1)? Say so here or in $OPENAI_BASE_URL"
            )
        try:
            parts = urlsplit(base)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or "@" in base or "?" in base or "#" in base or re.search(r"\s", base):
            raise ValueError("base_url must be http(s)://HOST[:PORT]/PATH: no user, password, ? or # (the key goes"
                             " into the environment)")  # fmt: skip
        return base.rstrip("/") + "/chat/completions"

    def key(self) -> str | None:
        """The secret, from the environment. ValueError if it isn't there or can't be one."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ValueError(f"${self.api_key_env} is not set: put the judge's key into it (api_key_env=null: it wants"
                             " none)")  # fmt: skip
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise ValueError(
                f"${self.api_key_env} (api_key_env) holds no key: there is a blank or a strange character in it"
            )
        return key


_settings = lru_cache(maxsize=16)(Settings)


@lru_cache(maxsize=16)  # every sample asks
def _text_of(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"template_file={file}: {error}") from None


def settings_of(base_url, system, template, template_file, scale, sampling, **rest) -> Settings:
    """The same object for the same options; ValueError for a bad one."""
    if template and template_file:
        raise ValueError("template or template_file: one of them")
    if template_file:
        template = _text_of(template_file)
    options = rest | {
        "base_url": base_url or os.environ.get("OPENAI_BASE_URL"),
        "system": DEFAULTS["system"] if system is None else system,
        "template": template or DEFAULTS["template"],
        "scale": tuple(scale) if isinstance(scale, Sequence) else (),
        "sampling": json.dumps(_plain(sampling or {}), sort_keys=True),
    }
    try:
        return _settings(**options)
    except TypeError:  # nothing that Python says here may be shown: it may quote an option
        raise ValueError(
            "an option of reward=judge is a list, or no text where it must be"
        ) from None


def scrub(text: str, secret: str | None) -> str:
    """A short line of somebody else's text, without any eight characters of the secret."""
    text, size = text[:1000], min(8, len(secret or ""))
    hidden = [False] * len(text)
    for at in range(len(text) - size + 1 if size else 0):
        if text[at : at + size] in secret:
            hidden[at : at + size] = [True] * size
    shown = "".join("\0" if hide else c for c, hide in zip(text, hidden, strict=True))
    return re.sub(r"\s+", " ", re.sub("\0+", MASK, shown)).strip()[:200]
