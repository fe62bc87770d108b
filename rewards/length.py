"""`reward=length`: the soft penalty for long answers of DAPO (Yu et al., arXiv:2503.14476, equation 13).

For a length L:  0                                  up to max_length - cache
                 (max_length - cache - L) / cache   from there to max_length: from 0 down to -1
                 -1                                 beyond
so the score is in [-1, 0]; parts: `length` in `unit`, and `overlong`, 1 where there is a penalty.
unit: characters, words, or tokens of `tokenizer`, which is a model's folder, its tokenizer.json or a hub
id; special tokens aren't counted, as verl takes them out of the response.
A word stands between white space. One of more than 20 characters counts as several, of 20 each, so that
nobody saves by leaving out blanks; in Chinese and Japanese, which have none, a character is a word.
The paper adds this to the outcome's reward: `reward=composite` with a weight, or
`reward.reward_kwargs.overlong_buffer_cfg` (tokens, beside any reward). One of the two, not both.
Degenerate: the shorter the better, an empty answer too: alone it teaches silence.
Not covered: a penalty for short answers; the prompt's length.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rewards import _options

UNSPACED = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]{{1,20}}")


class Options(_options.Options):
    unit: Literal["characters", "words", "tokens"] = "characters"
    max_length: int = Field(2000, ge=1)
    cache: int = Field(500, ge=1)  # the last so many before max_length, in which the penalty grows
    tokenizer: str | None = None  # of unit=tokens

    @model_validator(mode="after")
    def _fit_together(self):
        if self.cache > self.max_length:
            raise ValueError(
                f"cache must be at most {self.max_length} (max_length), not {self.cache}"
            )
        if (self.unit == "tokens") != bool(self.tokenizer):
            raise ValueError(
                f"unit=tokens needs a tokenizer and no other unit does, not {self.tokenizer!r}"
            )
        if self.tokenizer:
            _tokenizer(self.tokenizer)
        return self


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one response. ValueError for a bad option."""
    o = Options.of(options)
    text = solution_str if isinstance(solution_str, str) else ""
    if o.unit == "characters":
        length = len(text)
    elif o.unit == "words":
        length = sum(1 for _ in WORD.finditer(text))
    else:  # a lone surrogate is no text to a tokenizer
        text = text.encode(errors="replace").decode()
        length = len(_tokenizer(o.tokenizer).encode(text, add_special_tokens=False).ids)
    score = max(-1.0, min(0.0, (o.max_length - o.cache - length) / o.cache))
    return {"score": score, "length": float(length), "overlong": float(score < 0)}


@lru_cache(4)
def _tokenizer(path: str):
    """Without transformers, whose import takes seconds."""
    from tokenizers import Tokenizer

    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    try:
        return Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(path)
    except Exception as error:  # the library raises no narrower one
        raise ValueError(
            f"no tokenizer at {path!r} (a folder, a file, a hub id): {error}"
        ) from None


def bars(**options) -> dict:
    Options.of(options)
    return {"range": (-1.0, 0.0), "reference": 0.0, "empty": 0.0}


def reference_answer(ground_truth, extra_info=None) -> str:
    """The shortest answer there is."""
    return ""
