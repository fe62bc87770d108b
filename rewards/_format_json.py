"""JSON in a text, and whether it fits a schema (draft 2020-12).

A number that no double holds (1e999, 400 digits) fits nothing: readers of JSON make of it what they like.
"""

import json
import math
import re
from functools import lru_cache
from pathlib import Path

from rewards._options import plain

DECODER = json.JSONDecoder(parse_constant=lambda name: _refuse(name))
OPEN = re.compile(r"[\[{]")
AT_A_TIME = 4096  # characters
NOTHING = object()  # null is JSON


def _refuse(name: str):
    raise ValueError(f"{name} is no JSON")


def whole(text: str):
    """The JSON value that the text is, or NOTHING."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):  # of a number with thousands of digits, too
        return NOTHING


def last(text: str, validator):
    """The last object or array in the text that is of the schema's kind, else the last one, or NOTHING.

    Where the schema wants an object, a citation such as [1] after it is not the answer.
    """
    found = values(text)
    if not found:
        return NOTHING
    return next(
        (value for value in reversed(found) if not _of_another_kind(validator, value)), found[-1]
    )


def values(text: str) -> list:
    """The objects and arrays in the text that stand in no other; each try goes on where the one before failed."""
    found, at = [], 0
    while opened := OPEN.search(text, at):
        at = opened.start()
        if at > AT_A_TIME:  # an error counts the lines before it
            text, at = text[at:], 0
        try:
            value, at = DECODER.raw_decode(text, at)
            found.append(value)
        except json.JSONDecodeError as error:
            at = max(error.pos, at + 1)
        except (ValueError, RecursionError):
            break
    return found


def _of_another_kind(validator, value) -> bool:
    """Whether an object stands where the schema wants an array, or the other way round."""
    return any(map(_says_kind, _asked(validator.iter_errors, value) or ()))


def _says_kind(error) -> bool:
    """Whether an error is about the type of the value itself, in each case of anyOf and oneOf."""
    if error.path:
        return False
    if error.validator in ("anyOf", "oneOf"):
        said: dict = {}
        for each in error.context:
            case = each.schema_path[0]
            said[case] = said.get(case, False) or _says_kind(each)
        return bool(said) and all(said.values())
    return error.validator == "type"


def validator(schema):
    """Of a schema: a mapping, or the path of a JSON file. ValueError for a bad one."""
    return _validator(schema if isinstance(schema, str) else json.dumps(plain(schema)))


@lru_cache(64)
def _validator(schema: str):
    """Of a schema as JSON, or of one in a file."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    try:
        known = json.loads(
            schema if schema.lstrip()[:1] in ("{", "t", "f") else Path(schema).read_text()
        )
        Draft202012Validator.check_schema(known)
    except (OSError, ValueError) as error:
        raise ValueError(f"schema {schema}: {error}") from None
    except SchemaError as error:
        raise ValueError(f"schema: {error.message}") from None
    return Draft202012Validator(known, registry=Registry())  # an empty one: nothing is fetched


def fits(validator, value) -> bool:
    return _asked(_is_finite, value) is True and _asked(validator.is_valid, value) is True


def _is_finite(value) -> bool:
    """Whether a double can hold every number in it."""
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or math.isfinite(float(value))


def _asked(question, value):
    """What the validator says; None where the value is too much for it. ValueError for a $ref to nothing."""
    from referencing.exceptions import Unresolvable

    try:
        said = question(value)
        return said if isinstance(said, bool) else list(said)
    except (RecursionError, ArithmeticError):  # nested too deep; a number too large to divide
        return None
    except Unresolvable as error:
        raise ValueError(f"schema: nothing at $ref {error.ref!r}") from None
