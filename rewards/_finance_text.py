"""What an investment analysis says: the evidence behind `reward=finance`.

A word counts where a sentence uses it: the sentence is prose, is neither a copy of the prompt nor
of an earlier sentence (names of ideas masked, so that a frame filled with one idea after another
is a repetition too), and no list: of more than CROWD names, each with less than LIST other words.
It gives CROWD pieces of evidence at most, ideas, a warning, a reason, ...; each of them needs
CONTEXT units of other text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from rewards import _text
from rewards._references import after_thinking

WORDS = _text.load("finance.yaml")
PARTS = WORDS["patterns"].pop("parts")


def composed(regexp: str) -> str:
    """A regular expression with those of `parts` in the places of their names."""
    for name in reversed(PARTS):  # a part may hold earlier ones
        regexp = regexp.replace(f"{{{name}}}", PARTS[name])
    return regexp


PATTERNS = {
    name: _text.pattern(map(composed, regexps)) for name, regexps in WORDS["patterns"].items()
}
PROMISES = ("gains", "harmless", "tips")
GENERIC = _text.pattern(WORDS["generic"])
LEXICON = _text.Lexicon({name: WORDS[name] for name in ("terms", "risks", "how", "companies")})
CONNECTIVES = _text.Lexicon({"connectives": WORDS["connectives"]})
ACTION = _text.Lexicon({"actions": WORDS["actions"]}).pattern
RUN = re.compile(f"{_text.MASK}+")
LIMITED = ("terms", "risks", "how")  # these groups need context
LIST, CONTEXT, CROWD = 2.1, 4, 6
COPIED, REPEATED = 0.7, 0.6  # share of 3-grams
OFF_TOPIC = 0.3  # what trust is left to an answer to another question
CLEAN = 0.8  # share of prose that is enough: headings are none
READ, CUT = 20_000, 100_000  # characters: beyond, only promises are looked for; nothing
HITS = 1000  # negative words that are looked at


@dataclass
class Reading:
    """What is in an answer. Shares and truth values are 0 to 1, lengths in units of `_text`."""

    ideas: set[tuple[str, int]] = field(default_factory=set)
    said: set[str] = field(default_factory=set)  # which patterns its sentences match
    promises: int = 0
    absolutes: int = 0
    length: int = 0  # of everything
    kept: int = 0  # of the sentences that count
    sentences: int = 0  # that count
    whole: int = 0  # of those that have come to their end
    repeated: int = 0
    text: str = ""  # all but copies of the prompt

    def enough(self, group: str, full: int) -> float:
        """0 to 1: the share of `full` ideas of a group."""
        return _text.saturate(sum(name == group for name, _ in self.ideas), full)


def asked(info: object, context: bool = False) -> str:
    """The question, or everything that was asked; "" where extra_info has neither."""
    if not isinstance(info, Mapping):
        return ""
    messages = info.get("messages")
    texts = [
        message["content"]
        for message in (messages if isinstance(messages, list | tuple) else ())
        if isinstance(message, Mapping)
        and isinstance(message.get("content"), str)
        and (context or message.get("role") == "user")
    ]
    query = info.get("query")
    if not context and isinstance(query, str):
        return query
    more = [text for text in (query, info.get("context")) if context and isinstance(text, str)]
    return "\n".join(texts + more) if context else (texts or [""])[-1]


def read(answer: object, info: object) -> Reading:
    """The evidence in an answer."""
    answer = after_thinking(answer)
    folded, cut = _text.fold(answer, CUT), len(answer[CUT:])
    found = Reading(length=(len(folded[READ:]) + cut) // 2)
    prompt = _text.sentences(_text.fold(asked(info, context=True), READ))
    copied = _text.Seen(*map(_text.tokens, prompt))
    seen, heard = _text.Seen(), []
    for sentence in _text.sentences(folded[:READ]):
        words = _text.tokens(sentence)
        if copied.share(words) >= COPIED:
            found.length += _text.units(words)
            continue
        found.promises += count(sentence, *PROMISES)
        found.absolutes += count(sentence, "absolutes")
        size = _text.units(words)
        found.length += size
        names, masked = LEXICON.read(sentence)
        crowded = is_list(masked)
        rest = _text.tokens(masked)
        if seen.share(rest) >= REPEATED:
            found.repeated += size
        elif _text.is_prose(rest) and not crowded:
            found.kept += size
            found.sentences += 1
            found.whole += size * _text.is_whole(sentence)
            weigh(found, sentence, names, _text.units(rest))
        seen.add(rest)
        heard.append(sentence)  # a heading may say what it is about
        found.ideas.update(idea for _, ideas in names for idea in ideas if idea[0] == "companies")
    found.promises += count(folded[READ:], *PROMISES)
    found.text = "\n".join(heard)
    return found


def is_list(masked: str) -> bool:
    """Whether a masked sentence is more names than sentence.

    Two or three side by side are one thing ("營收成長"), more of them a list without commas.
    """
    places = sum(1 if len(run) <= 3 else len(run) for run in RUN.findall(masked))
    words = sum(word != _text.MASK for word in _text.tokens(masked))
    return places > CROWD and words < LIST * places


def weigh(found: Reading, sentence: str, names: list, context: int) -> None:
    """Add what a sentence that counts has to say, up to its limit."""
    ideas = list(dict.fromkeys(idea for _, ideas in names for idea in ideas))
    limited = [idea for idea in ideas if idea[0] in LIMITED]
    said = [name for name in ("warning", "diversification") if any(meant(name, sentence))]
    if limited and PATTERNS["reasons"].search(sentence):
        said.append("reason")
    if (advice := PATTERNS["advice"].search(sentence)) and ACTION.search(sentence, advice.end()):
        said.append("action")
    room = min(CROWD, context // CONTEXT)
    found.said.update(said[:room])
    found.ideas.update(limited[: max(0, room - len(said))])
    found.ideas.update(idea for _, ideas in CONNECTIVES.read(sentence)[0] for idea in ideas)


def meant(name: str, folded: str) -> Iterator[re.Match]:
    """Where a pattern is found and not taken back."""
    for match in islice(PATTERNS[name].finditer(folded), HITS):
        if name in (*PROMISES, "absolutes"):
            back = _text.taken_back(folded, *match.span(), inside=name != "harmless")
        else:
            back = _text.negated(folded, match.start())
        if not back:
            yield match


def count(folded: str, *names: str) -> int:
    """How often one of some patterns is meant."""
    return sum(1 for name in names for _ in meant(name, folded))


def parts_of(found: Reading, relevance: float, longest: float) -> dict[str, float]:
    """The four parts, 0 to 1 each."""
    enough, said = found.enough, found.said
    fit = min(1.0, max(0.0, 2 - found.length / longest))
    risk = 0.6 * enough("risks", 3) + 0.4 * ("warning" in said)
    advice = 0.4 * ("action" in said) + 0.3 * ("reason" in said) + 0.3 * enough("how", 3)
    language = found.whole / max(1, found.kept) + enough("terms", 3) + enough("connectives", 2)
    return {
        "accuracy": (0.6 * enough("terms", 5) + 0.4 * relevance) * fit,
        "risk": risk * 0.5**found.absolutes,
        "recommendation": advice * 0.5**found.absolutes,
        "language": language / 3,
    }


def trust_of(found: Reading, relevance: float, shortest: float) -> float:
    """0 to 1: what of it is an answer at all."""
    length = max(1, found.length)
    return (
        (OFF_TOPIC + (1 - OFF_TOPIC) * relevance)
        * _text.saturate(found.kept, shortest)
        * _text.saturate(1 + found.sentences, 4)
        * _text.saturate(found.kept + found.repeated, CLEAN * length)
        * (1 - found.repeated / length)
    )


def relevance_of(found: Reading, question: str, reference: object) -> float:
    """0 to 1: whether the answer is about what was asked; 1 where that can't be told.

    Seven tenths are the subject (companies, or the question's own words), three tenths the ideas
    of question and reference. Half of them is enough: there is more than one good answer.
    """
    question, reference = _text.fold(question, READ), _text.fold(reference, READ)
    names, masked = LEXICON.read(question)
    companies = {idea for _, ideas in names for idea in ideas if idea[0] == "companies"}
    subject = share_of(subjects(masked), found.text)
    if companies:
        subject = len(companies & found.ideas) / len(companies)
    names += LEXICON.read(reference)[0]
    topic = {idea for _, ideas in names for idea in ideas if idea[0] in ("terms", "risks")}
    parts = []
    if subject is not None:
        parts.append((0.7, _text.saturate(subject, 0.5)))
    if topic:
        parts.append((0.3, _text.saturate(len(topic & found.ideas) / len(topic), 0.5)))
    return sum(w * part for w, part in parts) / sum(w for w, _ in parts) if parts else 1.0


def subjects(question: str) -> set[str]:
    """What a masked question is about: pairs of Chinese characters, and words."""
    pairs: set[str] = set()
    last = ""
    for word in _text.tokens(GENERIC.sub(_text.MASK, question)):
        if word == _text.MASK or word in _text.FUNCTION_WORDS:
            last = ""
        elif _text.is_han(word):
            pairs |= {last + word} if last else set()
            last = word
        else:
            pairs |= {word} if len(word) > 1 else set()
            last = ""
    return pairs


def share_of(parts: set[str], text: str) -> float | None:
    """The share of the parts that the text has; None if there are none."""
    if not parts:
        return None
    words = set(_text.tokens(text))
    return sum(part in (text if _text.is_han(part) else words) for part in parts) / len(parts)
