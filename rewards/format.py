"""`reward=format`: does the response have a form: a regular expression, or a JSON schema (draft 2020-12).

Score: `good` (1) or `bad` (0); parts `found` (there is JSON, or the pattern is somewhere in the text)
and `valid`. `outcome`: valid, mismatch, no_json, empty. The ground truth isn't looked at.
What follows the last `</think>` counts; with thinking=true, the whole response.
  pattern  in Python's syntax, white space around the text ignored. strict: the whole text matches;
           else a part of it does
  schema   a mapping, or the absolute path of a JSON file. strict: the whole text is JSON; else the last object
           or array in it that stands in no other, in a fence or in prose
JSON is strict: no NaN, and of two members with one name the last counts.
Time: finding JSON is linear; a user's pattern need not be (`(a+)+b`), nor a schema with a `pattern` or
`uniqueItems`. In a run they have the limits of `_limits/calls`: what is stopped is masked.
Degenerate: a form is all that is asked for; `{}` fits a schema without `required`.
Not covered: `$ref` to other files, `format` (an annotation in draft 2020-12).
"""

import re
from functools import lru_cache

from rewards._format_json import NOTHING, fits, last, validator, whole
from rewards._options import check_flag, check_number, refuse_unknown
from rewards._references import after_thinking


def compute_score(
    data_source,
    solution_str,
    ground_truth,
    extra_info=None,
    *,
    pattern=None,  # one of the two
    schema=None,
    strict=True,
    thinking=False,
    good=1.0,
    bad=0.0,
    **unknown,
) -> dict:
    """Score one response. ValueError for a bad option."""
    refuse_unknown(unknown, compute_score)
    check_flag("strict", strict)
    check_flag("thinking", thinking)
    check_number("good", good)
    check_number("bad", bad, most=good)
    if (pattern is None) == (schema is None):
        raise ValueError("reward=format needs a pattern or a schema, one of the two")
    text = solution_str if isinstance(solution_str, str) else ""
    text = (text if thinking else after_thinking(text)).strip()
    if pattern is not None:
        form = _pattern(pattern)
        found = bool(form.fullmatch(text) if strict else form.search(text))
        valid, outcome = found, "valid" if found else "mismatch"
    else:
        form = validator(schema)
        value = whole(text) if strict else last(text)
        found = value is not NOTHING
        valid = found and fits(form, value)
        outcome = "valid" if valid else "mismatch" if found else "no_json"
    outcome = outcome if text or valid else "empty"
    score = float(good if valid else bad)
    return {"score": score, "found": float(found), "valid": float(valid), "outcome": outcome}


@lru_cache(64)
def _pattern(pattern) -> re.Pattern:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from None


def bars(**options) -> dict:
    """What has the form earns `good`; an empty answer, what the form makes of it."""
    empty = compute_score("", "", None, **options)["score"]
    good, bad = (options.get(name, compute_score.__kwdefaults__[name]) for name in ("good", "bad"))
    return {"range": (float(bad), float(good)), "reference": float(good), "empty": empty}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """None: no row says how a good answer looks."""
    return None
