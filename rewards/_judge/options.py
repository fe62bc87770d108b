"""The options of reward=judge, checked, and the one secret, which is read and never kept.

Nothing here says in an error what a user may have put into the wrong place: a key as the variable's
name, a password in a URL.
"""

import math
import os
import re
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import Field, field_validator, model_validator

from rewards import _options
from rewards._judge.text import names_in

TEXTS = yaml.safe_load((Path(__file__).parent.parent / "judge.yaml").read_text(encoding="utf-8"))
OURS = {"model", "messages", "stream", "n"}  # of a request: not for `sampling`
MASK = "***"


class Options(_options.Options):
    base_url: str | None = None  # https://HOST/v1; None: $OPENAI_BASE_URL
    model: str | None = None  # as its server calls it
    api_key_env: str | None = "OPENAI_API_KEY"  # the variable's name; None: the server wants no key
    system: str | None = None  # None: of judge.yaml
    template: str | None = None
    template_file: str | None = None
    scale: list[int | float] = Field([0, 10])
    # whatever else the request says (max_completion_tokens, response_format)
    sampling: dict | None = Field({"temperature": 0, "max_tokens": 1024})
    concurrency: int = Field(16, ge=1)
    requests_per_minute: float | None = Field(None, gt=0)
    # pauses in between: up to backoff_s, twice as much, ..., or as Retry-After says
    attempts: int = Field(8, ge=1)
    backoff_s: float = Field(1.0, ge=0)
    timeout_s: float = Field(120.0, gt=0)  # a request
    total_timeout_s: float = Field(600.0, gt=0)  # all attempts, once it is this sample's turn
    folder: str | None = None  # None: scores and the count of calls are this process's
    max_calls: int | None = Field(None, ge=0)
    give_up_after: int | None = Field(64, ge=1)

    @field_validator("scale", mode="before")
    @classmethod
    def _is_range(cls, scale):
        ends = scale if isinstance(scale, list) else []
        numbers = [end for end in ends if type(end) in (int, float) and math.isfinite(end)]
        if not (len(ends) == len(numbers) == 2 and ends[0] < ends[1]):
            raise ValueError("scale must be two numbers, the worst score and the best: [0, 10]")
        return scale

    @model_validator(mode="after")
    def _fit_together(self):
        if not self.model:
            raise ValueError("model: name the judge, as its server calls it")
        if self.api_key_env is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env takes the NAME of an environment variable, not a key")
        if OURS & (self.sampling or {}).keys():
            raise ValueError(f"sampling must be a mapping, without {', '.join(sorted(OURS))}")
        if self.template and self.template_file:
            raise ValueError("template or template_file: one of them")
        if "response" not in self.names:
            raise ValueError("template: it shows no {{response}}, so nothing would be judged")
        if self.base_url:
            address(self.base_url)
        return self

    @cached_property
    def texts(self) -> dict[str, str]:
        """What the judge is sent, by role, with {{names}} of a row's fields."""
        system = TEXTS["system"] if self.system is None else self.system
        file = self.template_file
        return {
            "system": system,
            "user": text_of(file) if file else self.template or TEXTS["template"],
        }

    @cached_property
    def names(self) -> set[str]:
        """The fields that the texts use."""
        return set().union(*map(names_in, self.texts.values()))

    def url(self) -> str:
        """Where to post. ValueError if there is none, or if it isn't plain."""
        base = self.base_url or os.environ.get("OPENAI_BASE_URL")
        if not base:
            raise ValueError(
                "base_url: where is the judge (https://HOST/v1)? Set it here or in $OPENAI_BASE_URL"
            )
        return address(base)

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


def address(base: str) -> str:
    """The address of chat completions. ValueError for a URL that isn't plain."""
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in base or "?" in base or "#" in base or re.search(r"\s", base):
        raise ValueError("base_url must be http(s)://HOST[:PORT]/PATH: no user, password, ? or # (the key goes"
                         " into the environment)")  # fmt: skip
    return base.rstrip("/") + "/chat/completions"


@lru_cache(maxsize=16)
def text_of(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"template_file={file}: {error}") from None


def scrub(text: str, secret: str | None) -> str:
    """A short line of somebody else's text, without any eight characters of the secret."""
    text, size = text[:1000], min(8, len(secret or ""))
    hidden = [False] * len(text)
    for at in range(len(text) - size + 1 if size else 0):
        if text[at : at + size] in secret:
            hidden[at : at + size] = [True] * size
    shown = "".join("\0" if hide else c for c, hide in zip(text, hidden, strict=True))
    return re.sub(r"\s+", " ", re.sub("\0+", MASK, shown)).strip()[:200]
