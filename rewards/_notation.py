"""An answer as LaTeX that math-verify reads: what it would misread is written out, what says nothing is left out.

Unicode's superscripts, fractions, roots and signs, bases, repeating decimals, words for large numbers, units,
marks around an answer, the letter of a choice. Every pattern takes linear time on a text of bounded length.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

from sympy.physics import units as sympy_units

SIGNS = str.maketrans({
    "−": "-", "–": "-", "－": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ",
    "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ", "≤": r"\leq ", "⩽": r"\leq ", "≥": r"\geq ", "⩾": r"\geq ",
    "≠": r"\neq ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "¬": r"\neg ", "∧": r"\wedge ", "∨": r"\vee ", "→": r"\to ", "⇒": r"\Rightarrow ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "°": r"^\circ ", "℃": r"^\circ C",
    "∥": r"\parallel ", "⊥": r"\perp ", "∠": r"\angle ", "、": ",", "。": ".",
})  # fmt: skip
ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[a-zA-Z]))")
DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}
SAME = {
    r"\varnothing": r"\emptyset", r"\lnot": r"\neg", r"\land": r"\wedge", r"\lor": r"\vee",
    r"\rightarrow": r"\to", r"\implies": r"\Rightarrow", r"\langle": "(", r"\rangle": ")",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\simeq": r"\approx", r"\doteq": r"\approx",
    r"\therefore": "", r"\because": "", r"\checkmark": "", r"\quad": " ", r"\qquad": " ", r"\displaystyle": "",
    r"\textstyle": "", r"\euro": "", r"\pounds": "", r"\yen": "", r"\left": "", r"\right": "", r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
}  # fmt: skip
COMMAND = re.compile(r"\\[a-zA-Z]+")
PAIRS = (
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("**", "**"),
    ("__", "__"),
    ("$$", "$$"),
    ("$", "$"),
    ("`", "`"),
    ("*", "*"),
)
COLOUR = re.compile(r"\\(?:text)?colou?r\s*\{[^{}]*\}")
STYLE = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|underline|mathit|textit|emph)\s*\{([^{}]*)\}|^\\text\s*\{\s*([-\d][^{}]*)\}$"
)
BLANK = re.compile(r"(?:\s|(?<!\\)\\ )+")
ENDS = re.compile(r"(?:\s|\\\\|\\[,;!:](?!\S)|(?<!\\)[.,;:。]|\\$)+$")
LABEL = re.compile(
    r"(?:\\text\s*\{[^{}]*(?::|\bis\b|\bare\b|\bequals\b)\s*\}"
    r"|\W{0,4}(?:[a-z]+ ){0,8}?(?:answer|result|solution|value|total|it|(?<= )[a-z])\W{0,4}?"
    r"(?:\bis\b|\bare\b|\bequals\b|:)[:*]*)\s*(?=\S)",
    re.I,
)
CHOICE = re.compile(
    r"(?:\\text(?:bf|rm)?\s*\{\s*)?(?:\*\*)?(?i:(?:option|choice)\s+)?(?:\(([A-J])\)|\[([A-J])\]|([A-J])(?:[.:)]|(?=\W*$)))"
    r"(?:\*\*)?[.:]?\}?(?:\s+(?!\\c[au]p|[-+=*/<>^]).*)?\}?",
    re.DOTALL,
)

GAP = r"(?:\\[,;!: ]|~|\s)"
GROUPED = re.compile(rf"(?<=\d){GAP}(?=\d{{3}}(?!\d))")  # 1 234, 1\,234
POWER = re.compile(r"(-?[\d.]+)[eE]([+-]?\d+)")
PERCENT = re.compile(rf"{GAP}*(?:\\?%|(?:\\text\{{ *)?(?:percent|pct)\}}?)$", re.I)
MIXED = re.compile(r"(?<![\d.\w])(\d+)\s+(\d+)/(\d+)(?![\d.])")  # 2 1/2
BASE = re.compile(r"(?<![\w.\\^_])\(?(\d[\dA-Fa-f]*)\)?_(?:(\d)(?!\d)|\{(\d{1,2})\})")  # 1011_2
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
LARGE = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "百": 2, "千": 3, "万": 4, "萬": 4,
    "百万": 6, "百萬": 6, "千万": 7, "千萬": 7, "亿": 8, "億": 8, "万亿": 12, "萬億": 12,
}  # fmt: skip
LARGER = re.compile(
    rf"(?<=\d){GAP}*(?:\\(?:text|mathrm|mbox|textrm)\s*\{{\s*)?"
    rf"({'|'.join(sorted(LARGE, key=len, reverse=True))})(?:s\b)?(?![a-zA-Z])(?:\s*(\}}))?"
)
ROMAN = re.compile(r"\\(?:text|mathrm|operatorname|mathit|rm)\s*\{\s*(i|e|\\pi|[a-z])\s*\}")
IN_TEXT = r"\\(?:text|mathrm|mbox|textrm|operatorname|mathbf)\s*\{"
WITHIN = r"(?:[^{}]|\{[^{}]*\})*"
EXPONENT = r"(?:\s*\^\s*(?:-?\d|\{-?\d\}))?"
UNIT = re.compile(  # 5 \text{ cm}^2, 4\,\mathrm{m}\cdot\mathrm{s}^{-1}
    rf"(?<=[\d}}]){GAP}*(?:\^\{{?\\circ\}}?\s*)?{IN_TEXT}({WITHIN})\}}{EXPONENT}"
    rf"(?:(?:{GAP}|\\cdot|[/*.])*{IN_TEXT}{WITHIN}\}}{EXPONENT})*$"
)
NOUN = re.compile(  # 18 dollars, 30 km/h, 5 (five)
    rf"(?<=[\d}}]) \(?([a-z]+{EXPONENT}(?:[ /*-][a-z]+{EXPONENT})*)\)?$", re.I
)
DEGREE = re.compile(r"\^\s*\{?\\circ\}?\s*[CFK]$")
HAN = re.compile(r"(?<=[\d}])\s*[\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff\uac00-\ud7af]+$")  # 18 元
WORDS = re.compile(r"(?=.*[a-z]{4})[a-z]+(?: [a-z]+)*", re.I)
NO_UNIT = {  # words after a number that say something about it
    "and", "or", "more", "less", "at", "than", "to", "if", "for", "when", "where", "mod", "is", "not", "times",
    "plus", "minus", "over", "squared", "cubed", "log", "ln", "exp", "sin", "cos", "tan", "cot", "csc", "pi",
    "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "sqrt", "max", "gcd", "lcm", "det", "choose", "am", "pm",
    "inf", "infinity", "from", "with", "only", "i", "e", *LARGE,
}  # fmt: skip
UNITS = {  # short ones that SymPy's list lacks
    "ft", "sq", "cu", "mph", "kph", "kmh", "kmph", "rpm", "bps", "kb", "mb", "gb", "tb", "usd", "eur", "gbp", "rs",
    "hr", "hrs", "min", "mins", "sec", "secs", "yr", "yrs", "mi", "lb", "lbs", "oz", "gal", "pt", "qt", "kw", "kwh",
    "kj", "kn", "hp", "cc", "ml", "cl", "dl", "mg", "kg", "km", "cm", "mm", "nm", "dm", "hz", "khz", "mhz", "ghz",
    "ev", "mv", "ms", "ns", "th", "st", "nd", "rd", "pcs", "ppl", "deg", "rad", "mol", "atm", "pa", "kpa", "ha",
    "in", "egg", "ant", "ohm", "kcal", "cal",
}  # fmt: skip
LETTERS = set("mgsLlhdVANJKWCFTHt")  # that are units by themselves


def latex(text: str, units: bool) -> tuple[str, str]:
    """(LaTeX without dollars, "\\%" or nothing). units: those of a number are left out."""
    text = _undressed(_of_unicode(text))
    if choice := CHOICE.fullmatch(text):
        return rf"\text{{{next(filter(None, choice.groups()))}}}", ""
    text = without_label(text)
    text = "".join(c for c in text.replace("\\$", "") if unicodedata.category(c) != "Sc")
    text = _undressed(ROMAN.sub(_roman, text))
    bare = PERCENT.sub("", text)
    percent, text = "\\%" * (bare != text), GROUPED.sub("", bare).replace("~", " ")
    text = REPEATING.sub(_repeating, MIXED.sub(r"\1\\frac{\2}{\3}", text))
    text = LARGER.sub(_large, text)
    if units:
        text = NOUN.sub(_noun, UNIT.sub(_unit, HAN.sub("", DEGREE.sub(r"^\\circ ", text))))
    text = BASE.sub(_base, text)
    if match := POWER.fullmatch(text):
        text = f"{match[1]} \\times 10^{{{match[2]}}}"
    elif WORDS.fullmatch(text):
        text = f"\\text{{{text}}}"
    return text.strip(), percent


def without_label(text: str) -> str:
    """Without "the answer is"."""
    return text[label.end() :] if (label := LABEL.match(text)) else text


def _of_unicode(text: str) -> str:
    """In ASCII, as far as it says the same."""
    if text.isascii():
        return text
    text = ROOT.sub(
        lambda m: rf"\sqrt{DEGREES[m[1]]}{{{next(filter(None, m.groups()[1:]), '')}}}", text
    )
    parts = []
    for form, characters in groupby(text, _form):
        run = "".join(characters)
        if form == "<fraction>":
            for each in run:
                over, _, under = unicodedata.normalize("NFKC", each).partition("\u2044")
                parts.append(rf"\frac{{{over}}}{{{under}}}" if under else each)
        elif form:
            inside = unicodedata.normalize("NFKC", run).translate(SIGNS)
            parts.append(f"{'^' if form == '<super>' else '_'}{{{inside}}}")
        else:
            parts.append(unicodedata.normalize("NFKC", run.translate(SIGNS)).translate(SIGNS))
    return "".join(parts).replace("\u2044", "/")


@lru_cache(4096)
def _form(character: str) -> str:
    """How Unicode says that a character is another one: <super>, <sub>, <fraction>, or nothing."""
    form = unicodedata.decomposition(character).partition(" ")[0]
    return form if form in ("<super>", "<sub>", "<fraction>") else ""


def _undressed(text: str) -> str:
    """Without what stands around an answer and says nothing: bold, dollars, colours, a full stop."""
    text = COMMAND.sub(lambda m: SAME.get(m[0], m[0]), text)
    text = BLANK.sub(" ", STYLE.sub(lambda m: m[1] or m[2] or "", COLOUR.sub("", text))).strip()
    before = None
    while text != before:
        before = text
        text = ENDS.sub("", text).lstrip("= \t")
        for start, end in PAIRS:
            if len(text) > len(start + end) and text.startswith(start) and text.endswith(end):
                text = text[len(start) : -len(end)].strip()
    return text


def _roman(match: re.Match) -> str:
    """Upright letters are what they are without; but those that are units, if not i or e."""
    return match[0] if match[1] in LETTERS else f" {match[1]} "


def _large(match: re.Match) -> str:
    """Five million as a product; a brace that it stood in alone goes with it."""
    after = "" if "{" in match[0] else match[2] or ""
    return rf" \times 10^{{{LARGE[match[1]]}}}{after}"


def _repeating(match: re.Match) -> str:
    whole, start, again = match[1] or "0", match[2], match[3] or match[4]
    over = int(whole + start + again) - int(whole + start)
    return rf"\frac{{{over}}}{{{'9' * len(again)}{'0' * len(start)}}}"


def _base(match: re.Match) -> str:
    try:
        return str(int(match[1], int(match[2] or match[3])))
    except ValueError:  # 19_2 is none
        return rf"\text{{{match[0]}}}"


def _unit(match: re.Match) -> str:
    word = _word(match[1])
    unit = word in LETTERS if len(word) == 1 else word.lower() not in NO_UNIT
    return "" if unit else match[0]


def _noun(match: re.Match) -> str:
    return "" if is_unit(match[1]) else match[0]


def _word(text: str) -> str:
    found = re.search(r"[^\W\d_]+", text)
    return found[0] if found else ""


@lru_cache(4096)
def is_unit(text: str) -> bool:
    """Whether a word after a number is a unit or a noun, neither a function nor a product like xy."""
    word = _word(text)
    lower = word.lower()
    if lower in NO_UNIT or (lower in ("min", "sec") and word != text.strip()):
        return False
    if "/" in text and all(part in LETTERS for part in re.findall(r"[a-zA-Z]+", text)):  # m/s
        return True
    if not word or lower in UNITS or not word.isascii():
        return True
    if len(word) < 4 or word.isupper():
        if len(word) > 1 and hasattr(sympy_units, word):
            return True
        return len(word) == 3 and not word.isupper() and any(c in "aeiou" for c in lower[1:])
    return any(c in "aeiouy" for c in lower)


FRACTION = re.compile(r"\\frac(?!\s*(?:\{.*\}|\d)\s*(?:\{|\d|[a-z\\]))", re.DOTALL)
SPACES = re.compile(r"\\(?:[,;!: ]|quad)|[\s~]+")
AROUND = re.compile(r"\\(?:text|mathrm|mbox|textrm|operatorname|mathbf)\s*\{([^{}]*)\}|\{(\w)\}")


def plain(text: str) -> str:
    """The text as it is compared with another: without blanks, and without braces that need not be."""
    text = AROUND.sub(lambda m: m[1] or m[2] or "", text)
    return SPACES.sub("", text)


def well_formed(text: str) -> bool:
    """Whether LaTeX could set it: every brace closed, every fraction with two parts."""
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth < 0:
            return False
    return not depth and not FRACTION.search(text) and any(c.isalnum() for c in text)
