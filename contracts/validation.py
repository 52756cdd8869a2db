"""Validation errors with messages that tell the client how to correct the request."""

import re
from typing import Any

from pydantic import ValidationError

from contracts.errors import FieldError

MAX_FIELD_ERRORS = 20
MAX_FIELD_NAME = 100

_ONE = re.compile(r"\b1 (item|character)s")

# Pydantic's error types and our messages, formatted with the error's context. Other types keep Pydantic's message.
WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "datetime_from_date_parsing": 'must be an RFC 3339 time, such as "2026-01-31T08:30:00Z": {error}',
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    # The sku is the only field with a pattern.
    "string_pattern_mismatch": 'may have letters, digits, ".", "_" and "-" only, and begins with a letter or a digit',
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
}


def field_errors(error: ValidationError) -> list[FieldError]:
    """Return the wrong fields with their paths, such as `items[0].quantity`; MAX_FIELD_ERRORS at most."""
    found = error.errors(include_url=False, include_input=False)
    # Pydantic drops invalid items and then also reports that their tuple is too short. Keep only the items' errors.
    parents = {one["loc"][:depth] for one in found for depth in range(1, len(one["loc"]))}
    telling = [one for one in found if not (one["type"] == "too_short" and one["loc"] in parents)]
    return [FieldError(_path(one["loc"]), _words(one)) for one in telling[:MAX_FIELD_ERRORS]]


def _words(finding: Any) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if context.get("field_type") == "Value":  # Pydantic calls a string "Value" after one of our validators
        kind = f"string_{kind}"
    words = WORDS.get(kind)
    if words is None:
        return str(finding["msg"]).removeprefix("Value error, ")
    return _ONE.sub(r"1 \1", words.format(**context))


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path if len(path) <= MAX_FIELD_NAME else path[:MAX_FIELD_NAME] + "…"
