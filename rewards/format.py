"""`reward=format`: does the response have a form: a regular expression, or a JSON schema (draft 2020-12).

Score: `good` (1) or `bad` (0); parts `found` (there is JSON, or the pattern is somewhere in the text)
and `valid`. `outcome`: valid, mismatch, no_json, empty. The ground truth isn't looked at.
What follows the last `</think>` counts; with thinking=true, the whole response.
  pattern  in Python's syntax. White space around the text is ignored, and so is white space that is all there is
           between two tags: `<answer> </answer>` says nothing. strict: the whole text matches; else a part of it does
  schema   a mapping, or the absolute path of a JSON file. strict: the whole text is JSON; else the last object or
           array in it that stands in no other, in a fence or in prose, and is of the kind that the schema wants:
           after an object a citation, [1], is not looked at
JSON is strict: no NaN, and of two members with one name the last counts; a number beyond a double (1e999)
fits no schema.
Time: finding JSON is linear; a user's pattern need not be (`(a+)+b`), nor a schema with a `pattern` or
`uniqueItems`. In a run they have the limits of `_limits/calls`: what is stopped is masked.
Degenerate: a form is all that is asked for; `{}` fits a schema without `required`.
Not covered: `$ref` to other files, `format` (an annotation in draft 2020-12).
"""

import re
from functools import lru_cache

from pydantic import Field, model_validator

from rewards import _options
from rewards._format_json import NOTHING, fits, last, validator, whole
from rewards._references import after_thinking

# As `<answer> </answer>`: an opening tag, and what closes it.
BLANK_BETWEEN_TAGS = re.compile(r"<(\w+)>\s+</\1>")


class Options(_options.Options):
    pattern: str | None = None  # one of the two
    schema_: dict | bool | str | None = Field(None, alias="schema")
    strict: bool = True
    thinking: bool = False
    good: float = 1.0
    bad: float = 0.0

    @model_validator(mode="after")
    def _fit_together(self):
        if self.bad > self.good:
            raise ValueError(f"bad must be at most {self.good:g} (good), not {self.bad:g}")
        if (self.pattern is None) == (self.schema_ is None):
            raise ValueError("reward=format needs a pattern or a schema, one of the two")
        if self.pattern is None:
            validator(self.schema_)
        else:
            _pattern(self.pattern)
        return self


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one response. ValueError for a bad option."""
    o = Options.of(options)
    text = solution_str if isinstance(solution_str, str) else ""
    text = (text if o.thinking else after_thinking(text)).strip()
    if o.pattern is not None:
        form = _pattern(o.pattern)
        text = BLANK_BETWEEN_TAGS.sub(r"<\1></\1>", text)
        found = bool(form.fullmatch(text) if o.strict else form.search(text))
        valid, outcome = found, "valid" if found else "mismatch"
    else:
        form = validator(o.schema_)
        value = whole(text) if o.strict else last(text, form)
        found = value is not NOTHING
        valid = found and fits(form, value)
        outcome = "valid" if valid else "mismatch" if found else "no_json"
    outcome = outcome if text or valid else "empty"
    score = float(o.good if valid else o.bad)
    return {"score": score, "found": float(found), "valid": float(valid), "outcome": outcome}


@lru_cache(64)
def _pattern(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from None


def bars(**options) -> dict:
    """What has the form earns `good`; an empty answer, what the form makes of it."""
    empty = compute_score("", "", None, **options)["score"]
    o = Options.of(options)
    return {"range": (o.bad, o.good), "reference": o.good, "empty": empty}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """None: no row says how a good answer looks."""
    return None
