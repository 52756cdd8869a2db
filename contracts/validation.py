"""Validation errors with messages that tell the client how to correct the request."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from contracts.errors import FieldError

MAX_FIELD_ERRORS = 20
MAX_FIELD_NAME = 100
MAX_ITEMS = 1000

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
    # The sku is the only field of a request that Pydantic compares with a pattern.
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


def surplus_fields(model: type[BaseModel], data: Mapping[str, Any]) -> list[FieldError]:
    """Return the first unknown fields of `data` and of the objects in it, if there are more than MAX_FIELD_ERRORS.

    Pydantic would make an error for each of thousands, which takes tens of milliseconds. [] where it may validate.
    """
    found = list(islice(_unknown(model, data, ()), MAX_FIELD_ERRORS + 1))
    words = WORDS["extra_forbidden"]
    return [FieldError(_path(one), words) for one in found[:-1]] if len(found) > MAX_FIELD_ERRORS else []


def _unknown(model: type[BaseModel], data: object, path: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    if isinstance(data, Mapping):
        nested = _nested(model)
        for name, value in data.items():
            if name not in model.model_fields:
                yield (*path, name)
            elif name in nested:
                yield from _unknown(nested[name], value, (*path, name))
    elif isinstance(data, list):
        # A longer list is refused as such before its items are validated: contracts.base.at_most.
        for position, item in enumerate(islice(data, MAX_ITEMS)):
            yield from _unknown(model, item, (*path, position))


@cache
def _nested(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the model of each field that holds objects, or a list of them."""
    found = {name: _model_in(field.annotation) for name, field in model.model_fields.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


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
