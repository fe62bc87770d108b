"""`reward=length`: the soft penalty for long answers of DAPO (Yu et al., arXiv:2503.14476, equation 13).

For a length L:  0                                  up to max_length - cache
                 (max_length - cache - L) / cache   from there to max_length: from 0 down to -1
                 -1                                 beyond
so the score is in [-1, 0]; parts: `length` in `unit`, and `overlong`, 1 where there is a penalty.
unit: characters, words (between white space), or tokens of `tokenizer`, which is a model's folder, its
tokenizer.json or a hub id; special tokens aren't counted, as verl takes them out of the response.
The paper adds this to the outcome's reward: `reward=composite` with a weight, or
`reward.reward_kwargs.overlong_buffer_cfg` (tokens, beside any reward). One of the two, not both.
Degenerate: the shorter the better, an empty answer too: alone it teaches silence.
Not covered: a penalty for short answers; the prompt's length.
"""

from functools import lru_cache
from pathlib import Path

from rewards._options import check_choice, check_number, refuse_unknown

UNITS = ("characters", "words", "tokens")


def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    unit="characters",
    max_length=2000,
    cache=500,  # the last so many before max_length, in which the penalty grows
    tokenizer=None,  # of unit=tokens
    **unknown,
) -> dict:
    """Score one response. ValueError for a bad option."""
    refuse_unknown(unknown, compute_score)
    check_choice("unit", unit, UNITS)
    check_number("max_length", max_length, 1, whole=True)
    check_number("cache", cache, 1, max_length, whole=True)
    if (unit == "tokens") != bool(tokenizer):
        raise ValueError(f"unit=tokens needs a tokenizer and no other unit does, not {tokenizer!r}")
    text = solution_str if isinstance(solution_str, str) else ""
    if unit == "characters":
        length = len(text)
    elif unit == "words":
        length = len(text.split())
    else:  # a lone surrogate is no text to a tokenizer
        text = text.encode(errors="replace").decode()
        length = len(_tokenizer(tokenizer).encode(text, add_special_tokens=False).ids)
    score = max(-1.0, min(0.0, (max_length - cache - length) / cache))
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
    compute_score("", "", None, **options)  # refuses bad ones
    return {"range": (-1.0, 0.0), "reference": 0.0, "empty": 0.0}


def reference_answer(ground_truth, extra_info=None) -> str:
    """The shortest answer there is."""
    return ""
