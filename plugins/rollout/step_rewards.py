"""Step rewards: scores of spans of a response's text, on the tokens that were sampled.

A reward function returns `steps` beside its `score`: [(start, end, score), ...] with character
offsets into the response. A step's score stands on the token that completes the span's last
character, the outcome on the response's last token; scores on one token add up.

Text encoded anew may give other tokens than those that were sampled, so the tokens are traced
themselves: each to the bytes it stands for, the bytes to characters. What "completes" means:
  a character of several tokens    belongs to the last of them
  a token across the end of a span is the span's last one
  a special token                  has no characters: verl skips it when it decodes
  bytes that make no character     (U+FFFD in the text) belong to the token after which it is clear
                                   that they never will, the last one at the latest
Linear time for byte-level and SentencePiece tokenizers, with or without byte fallback. For any other
(WordPiece, tokenizers in Python) the first token after which the decoded text reaches the span's
end is found by bisection, in O(n log n) for each step.
Not covered: an agent loop's own text in the response (of tools), on whose tokens no loss stands.
"""

import codecs
import math
import operator
import re
from bisect import bisect_left
from functools import lru_cache
from itertools import accumulate

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
UNKNOWN = "\ufffd".encode()


def place(tokenizer, response_ids, score: float, steps=()) -> list[float]:
    """Rewards (len(response_ids),): the steps' and, on the last token, the outcome's.

    Args:
        tokenizer: a Hugging Face tokenizer, the one whose decoded text the reward function got.
        response_ids: the sampled token ids.
        score: of the outcome.
        steps: (start, end, score) each.

    Raises:
        ValueError: a step is not such a triple, is empty or outside of the text, or its score is
            not finite; the message names it.
    """
    ids = list(response_ids)
    rewards = [0.0] * len(ids)
    if len(steps):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        spans = [_checked(step, len(text)) for step in steps]
        find = _finder(tokenizer, ids, text)
        for end, step_score in spans:
            rewards[find(end)] += step_score
    if ids:
        rewards[-1] += float(score)
    return rewards


def _checked(step, length: int) -> tuple[int, float]:
    """Where the step ends, and its score."""
    try:
        start, end, score = step
        start, end, score = operator.index(start), operator.index(end), float(score)
    except (TypeError, ValueError):
        raise ValueError(
            f"step {step!r} is not (start, end, score): two whole numbers and a number"
        ) from None
    if not 0 <= start < end <= length:
        raise ValueError(
            f"step {step!r} is not a span of the response, which has {length} characters"
        )
    if not math.isfinite(score):
        raise ValueError(f"the score of step {step!r} is not finite")
    return end, score


def _finder(tokenizer, ids: list[int], text: str):
    """end → index of the token that completes text[:end]."""
    ends = _ends(tokenizer, ids, text)
    if ends:
        return lambda end: bisect_left(ends, end)

    def reaches(tokens: int, end: int) -> bool:
        return tokenizer.decode(ids[:tokens], skip_special_tokens=True)[:end] == text[:end]

    counts = range(1, len(ids) + 1)
    return lambda end: bisect_left(counts, True, key=lambda n: reaches(n, end))


def _ends(tokenizer, ids: list[int], text: str) -> list[int] | None:
    """How many characters are complete after each token; None if the bytes do not give the text."""
    table = _table(tokenizer)
    if table is None:
        return None
    parts = _mended([table[token] for token in ids], [token in table.fallback for token in ids])
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoded = [decoder.decode(part) for part in parts]
    decoded.append(decoder.decode(b"", True))
    whole = "".join(decoded)
    cut = len(whole) - len(text)  # spaces that SentencePiece takes off the front
    if cut < 0 or whole[cut:] != text or whole[:cut].strip(" "):
        return None
    ends = list(accumulate(map(len, decoded[:-1]), initial=-cut))[1:]
    ends[-1] = len(text)
    return ends


def _mended(parts: list[bytes], fallback: list[bool]) -> list[bytes]:
    """Byte tokens in a row are decoded together, as `tokenizers` does: one bad byte spoils all."""
    run = []
    for at, part in enumerate([*parts, b"."]):
        if at < len(parts) and fallback[at]:
            run.append(at)
        elif part and run:  # a skipped token does not end the row
            try:
                b"".join(parts[i] for i in run).decode()
            except UnicodeDecodeError:
                for i in run:
                    parts[i] = UNKNOWN
            run = []
    return parts


class _Table(dict):
    """Token id → the bytes it stands for, filled in as needed; b"" for what verl skips."""

    def __init__(self, backend: Tokenizer, decoder: str):
        self.backend = backend
        self.byte_level = '"ByteLevel"' in decoder
        self.byte_fallback = '"ByteFallback"' in decoder
        self.fallback: set[int] = set()
        added = backend.get_added_tokens_decoder()
        self.update((token, b"") for token, what in added.items() if what.special)

    def __missing__(self, token: int) -> bytes:
        self[token] = part = self._bytes(token, self.backend.id_to_token(token) or "")
        return part

    def _bytes(self, token: int, word: str) -> bytes:
        if self.byte_level:  # an added token may be plain text
            return bytes(map(BYTES.get, word)) if BYTES.keys() >= set(word) else word.encode()
        if self.byte_fallback and BYTE_TOKEN.fullmatch(word):
            self.fallback.add(token)
            return bytes.fromhex(word[3:5])
        return word.replace("▁", " ").encode()


@lru_cache(maxsize=4)
def _table(tokenizer) -> _Table | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer) or backend.decoder is None:
        return None
    return _Table(backend, backend.decoder.__getstate__().decode())
