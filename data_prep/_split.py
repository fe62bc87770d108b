"""Which rows are for validation: the same prompt never stands on both sides."""

import hashlib
import json


def digest(value: object) -> bytes:
    """16 bytes that tell JSON values (prompts, mostly) apart."""
    return hashlib.sha256(json.dumps(value, default=str).encode()).digest()[:16]


class Split:
    """Deals rows into train and val.

    A row whose source is of a split (`given`) goes there; any other goes to val if its prompt was
    given for val before, else by the hash of its prompt: it stays where it is when rows are added.
    `share` is how much of the latter is for validation.
    """

    def __init__(self, share: float):
        self.share = share
        self.in_val: set[bytes] = set()

    def of(self, prompt: list, given: str = "") -> str:
        """`train`, `val`, or `in_val`: given for training, but its prompt was given for val before."""
        key = digest(prompt)
        if given == "val":
            self.in_val.add(key)
        if given:
            return "in_val" if given == "train" and key in self.in_val else given
        drawn = int.from_bytes(key[:8], "big") < self.share * 2**64
        return "val" if drawn or key in self.in_val else "train"
