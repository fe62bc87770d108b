"""JSON in a text, and whether it fits a schema (draft 2020-12)."""

import json
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


def last(text: str):
    """The last object or array in the text; each try goes on where the one before failed."""
    value, at = NOTHING, 0
    while opened := OPEN.search(text, at):
        at = opened.start()
        if at > AT_A_TIME:  # an error counts the lines before it
            text, at = text[at:], 0
        try:
            value, at = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            at = max(error.pos, at + 1)
        except (ValueError, RecursionError):
            break
    return value


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
    from referencing.exceptions import Unresolvable

    try:
        return validator.is_valid(value)
    except RecursionError:  # nested too deep
        return False
    except Unresolvable as error:
        raise ValueError(f"schema: nothing at $ref {error.ref!r}") from None
