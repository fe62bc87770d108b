"""Measures of text that several rewards share, for Chinese in both scripts and English.

A text is folded first: NFKC, lower case, simplified characters, no invisible ones, no blanks between
Chinese characters. All else takes folded text and needs linear time. Words are in `_text.yaml`.
Simplified characters are those of OpenCC.
Not covered: grammar and truth. A text of well-formed nonsense is prose to these.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import opencc
import yaml

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
MASK = "\ue000"  # stands for a word of a lexicon, in masked text
TOKEN = re.compile(f"[{HAN}{MASK}]|[^\\W_{HAN}]+")
INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ue000\ufeff]"
)
BLANK_IN_CHINESE = re.compile(f"(?<=[{HAN}])[ \\t]+(?=[{HAN}])")
WRAPPED = re.compile(r"(?<=[a-z,])\n(?=[a-z])")
MARK = re.compile(r"^[ \t]*(?:[#>*•·-]+[ \t]*)?(?:\d{1,2}[.)、](?!\d))?[ \t]*", re.MULTILINE)
ENDS = "。!?.…"
# A dot ends a sentence before white space, but not after an initial or a short form.
SENTENCE = re.compile(
    r"(?<=[。!?])|(?<=[^\s.][^\s.]\.)(?<!\bvs\.)(?<!\binc\.)(?<!\bco\.)(?<!\bltd\.)(?<!\bcorp\.)(?=\s)|\n+"
)
CLAUSE = re.compile(
    r"[,、;:。!?\n]|(?<!\d)\.|但|却|而是|[就也都]|\b(?:but|however|yet|then|and (?:there|it|we|i|you|the))\b"
)
ASKED = re.compile(r"[^.。!?\n]*(?:\?|[吗呢](?=[。!\n]|$))")
PIECE = 256  # characters: sorting a run of combining marks takes quadratic time
BEFORE, AFTER = {True: 12, False: 60}, {True: 14, False: 60}  # characters; True: Chinese


def load(name: str) -> dict:
    """A file of words beside this one."""
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))


WORDS = load("_text.yaml")
# Each character's simplified one, whatever stands beside it: so a word folds alike alone and in a text.
CHARACTERS = [chr(code) for code in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000))]
SIMPLIFIED = opencc.OpenCC("t2s").convert("\n".join(CHARACTERS)).split("\n")
VARIANTS = {ord(a): b for a, b in zip(CHARACTERS, SIMPLIFIED, strict=True) if a != b <= "\u9fff"}
VARIANTS |= str.maketrans({"甦": "苏", "’": "'"})  # OpenCC simplifies the first only in its phrases
LATIN = str.maketrans("асеорхуіјѕԁӏһο", "aceopxyijsdlho")  # Cyrillic and Greek that looks like it
FOLDED = VARIANTS | LATIN
FUNCTION_WORDS = {
    token for line in WORDS["function_words"] for token in TOKEN.findall(line.translate(VARIANTS))
}


def pattern(regexps: Iterable[str]) -> re.Pattern:
    """One pattern for several, written in either Chinese script."""
    return re.compile("|".join(f"(?:{regexp})" for regexp in regexps).translate(VARIANTS))


NEGATOR, DOUBT = pattern(WORDS["negators"]), pattern(WORDS["doubts"])
NEUTRAL, REJECTION = pattern(WORDS["neutral"]), pattern(WORDS["rejections"])


def fold(text: object, most: int | None = None) -> str:
    """The text (its first `most` characters) in one form; what is no text is empty."""
    if not isinstance(text, str):
        return ""
    text = text[:most]
    if not text.isascii():
        pieces = (text[at : at + PIECE] for at in range(0, len(text), PIECE))
        text = "".join(unicodedata.normalize("NFKC", piece) for piece in pieces)
        text = text.casefold().translate(FOLDED)
    text = INVISIBLE.sub("", text.casefold())
    return BLANK_IN_CHINESE.sub("", text)


def tokens(folded: str) -> list[str]:
    """Chinese characters and words of other scripts."""
    return TOKEN.findall(folded)


def is_han(token: str) -> bool:
    return "\u3400" <= token[:1] <= "\u9fff"


def units(words: Iterable[str]) -> int:
    """Length that is comparable between languages: a Chinese character is 1, a word 2."""
    return sum(1 if is_han(word) else 2 for word in words if word != MASK)


def sentences(folded: str) -> list[str]:
    """Sentences and lines, without marks of lists and headings."""
    parts = SENTENCE.split(MARK.sub("", WRAPPED.sub(" ", folded)).replace("**", ""))
    stripped = (part.strip(" \t\r\n|`\"')」』”") for part in parts)
    return [part for part in stripped if part.strip()]  # of other blanks, too


def is_whole(sentence: str) -> bool:
    """Whether it has come to its end."""
    return sentence[-1:] in ENDS


def is_prose(words: list[str], at_least: int = 6) -> bool:
    """Whether the tokens are a sentence: long enough, of function words and others.

    Half of English words are function words, but few characters of a terse Chinese sentence.
    """
    words = [word for word in words if word != MASK]
    function = [word for word in words if word in FUNCTION_WORDS]
    needed = sum(0.05 if is_han(word) else 0.2 * (not word.isdigit()) for word in words)
    latin = sum(not is_han(word) for word in words)
    salad = latin >= 8 and sum(not is_han(word) for word in function) > 0.85 * latin
    return units(words) >= at_least and len(function) >= max(1, needed) and not salad


def saturate(count: float, full: float) -> float:
    """0 to 1: the share of `full`, more is not better."""
    return min(1.0, count / full)


def grams(words: list[str], n: int = 3) -> list[tuple]:
    """Runs of n tokens; one shorter run if there are fewer tokens."""
    return [tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


class Seen:
    """What has been said so far."""

    def __init__(self, *texts: list[str]):
        self.grams = {gram for words in texts for gram in grams(words)}

    def share(self, words: list[str]) -> float:
        """How much of a sentence has been said before."""
        found = grams(words)
        return sum(gram in self.grams for gram in found) / len(found)

    def add(self, words: list[str]) -> None:
        self.grams.update(grams(words))


class Lexicon:
    """Ideas by group, each with all its names: {"risks": [["波動", "volatility"], ...]}.

    An idea is (group, number). The longest name wins; a name may stand for several ideas.
    """

    def __init__(self, groups: Mapping[str, list[list[str]]]):
        self.ideas: dict[str, list[tuple[str, int]]] = {}
        for group, ideas in groups.items():
            for number, names in enumerate(ideas):
                for name in names:
                    self.ideas.setdefault(self._key(fold(name)), []).append((group, number))
        names = sorted(self.ideas, key=len, reverse=True)
        han = "|".join(re.escape(name) for name in names if is_han(name))
        latin = "|".join(
            re.escape(name).replace(r"\ ", "[ -]") for name in names if not is_han(name)
        )
        latin = f"(?<![a-z0-9])(?:{latin})(?:e?s)?(?![a-z0-9])" if latin else ""
        self.pattern = re.compile("|".join(filter(None, (han, latin))))

    @staticmethod
    def _key(name: str) -> str:
        return name.replace("-", " ")

    def read(self, folded: str) -> tuple[list[tuple[int, list[tuple[str, int]]]], str]:
        """([(start, ideas)] of the names, the text with a mask in place of each name)."""
        found = []

        def mask(match: re.Match) -> str:
            name = self._key(match[0])
            forms = (name, name.removesuffix("s"), name.removesuffix("es"))
            found.append((match.start(), next(self.ideas[f] for f in forms if f in self.ideas)))
            return MASK

        masked = self.pattern.sub(mask, folded)
        return found, masked


def negated(folded: str, start: int, end: int | None = None) -> bool:
    """Whether an odd number of words of its clause before `start`, or up to `end`, negate what is there."""
    before = folded[max(0, start - BEFORE[is_han(folded[start])]) : start]
    clause = CLAUSE.split(before)[-1] + (folded[start:end] if end else "")
    return _is_odd(clause)


def _is_odd(clause: str) -> bool:
    clause = NEUTRAL.sub("", clause)
    negators = len(NEGATOR.findall(clause))
    return negators > 0 and max(0, negators - len(DOUBT.findall(clause))) % 2 == 1


def taken_back(folded: str, start: int, end: int, inside: bool = True) -> bool:
    """Whether the statement at [start, end) is not made: negated, rejected, asked, or said to be another's.

    "不保證獲利", "guarantees are a scam", "will it certainly rise?". inside: whether the statement's own words
    can negate it ("returns are far from guaranteed"), which "risk-free" does not.
    """
    if negated(folded, start, end if inside else None) or ASKED.match(folded, end, end + 100):
        return True
    han = is_han(folded[start])
    before = CLAUSE.split(folded[max(0, start - BEFORE[han]) : start])[-1]
    after = CLAUSE.split(folded[end : end + AFTER[han]])[0]
    return any(
        not _is_odd(part[: match.start()])
        for part in (before, after)
        for match in REJECTION.finditer(part)
    )
