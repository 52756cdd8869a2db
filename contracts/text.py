"""The types of all text fields, and which characters Unicode calls invisible, blank or a line break."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# Ranges for character classes of Python, and of the JSON Schemas. Without the flag u, which not every reader of a
# schema sets, a range of ECMAScript cannot have characters beyond the basic plane. So the schemas leave these out.
UNPRINTABLE = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069"
"""Characters that PostgreSQL refuses, that are invisible, or that change the direction of the text around them."""
_SURROGATES = r"\ud800-\udfff"  # JSON Schemas never see half of a pair

LINE_BREAKS = r"\n\x0b\x0c\r\x85\u2028\u2029"
"""Mandatory breaks of UAX #14: the classes BK, CR, LF and NL."""

_WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_DEFAULT_IGNORABLE = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufff8"
)
_DEFAULT_IGNORABLE_BEYOND = r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
INVISIBLE = rf"{_CONTROLS}{_WHITE_SPACE}{_DEFAULT_IGNORABLE}\u2800"
"""Of the basic plane: control characters, White_Space, Default_Ignorable_Code_Point, the empty pattern of Braille."""

_CONTROL_CHARACTERS = re.compile(f"[{UNPRINTABLE}{_SURROGATES}]")
_LINE_BREAK = re.compile(f"[{LINE_BREAKS}]")
_VISIBLE = re.compile(f"[^{INVISIBLE}{_DEFAULT_IGNORABLE_BEYOND}]")


def _printable(value: str) -> str:
    if _CONTROL_CHARACTERS.search(value):
        message = "must not contain control characters"
        raise ValueError(message)
    return value


def _one_line(value: str) -> str:
    if is_blank(value) or _LINE_BREAK.search(value):
        message = "must be one line that is not blank"
        raise ValueError(message)
    return value


def is_blank(value: str) -> bool:
    """Tell whether no character of the text is visible."""
    return not _VISIBLE.search(value)


Text = Annotated[str, AfterValidator(_printable), Field(json_schema_extra={"pattern": f"^[^{UNPRINTABLE}]*$"})]

_IN_LINE = f"[^{UNPRINTABLE}{LINE_BREAKS}]*"
Line = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=200,
        json_schema_extra={"pattern": f"^{_IN_LINE}[^{INVISIBLE}]{_IN_LINE}$"},
    ),
    AfterValidator(_one_line),
]
"""A text of one line that is not blank: a name, a reason."""
