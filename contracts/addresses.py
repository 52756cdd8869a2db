"""Postal addresses, and the codes of the countries."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from contracts.base import Request
from contracts.text import Line

# ISO 3166-1 alpha-2, the officially assigned codes: the second letters by the first one.
_SECOND_LETTERS = {
    "A": "DEFGILMOQRSTUWXZ",
    "B": "ABDEFGHIJLMNOQRSTVWYZ",
    "C": "ACDFGHIKLMNORUVWXYZ",
    "D": "EJKMOZ",
    "E": "CEGHRST",
    "F": "IJKMOR",
    "G": "ABDEFGHILMNPQRSTUWY",
    "H": "KMNRTU",
    "I": "DELMNOQRST",
    "J": "EMOP",
    "K": "EGHIMNPRWYZ",
    "L": "ABCIKRSTUVY",
    "M": "ACDEFGHKLMNOPQRSTUVWXYZ",
    "N": "ACEFGILOPRUZ",
    "O": "M",
    "P": "AEFGHKLMNRSTWY",
    "Q": "A",
    "R": "EOSUW",
    "S": "ABCDEGHIJKLMNORSTVXYZ",
    "T": "CDFGHJKLMNORTVWZ",
    "U": "AGMSYZ",
    "V": "ACEGINU",
    "W": "FS",
    "Y": "ET",
    "Z": "AMW",
}
COUNTRIES = frozenset(first + second for first, seconds in _SECOND_LETTERS.items() for second in seconds)
_PATTERN = f"^({'|'.join(f'{first}[{seconds}]' for first, seconds in _SECOND_LETTERS.items())})$"


def _assigned(code: str) -> str:
    if not re.fullmatch("[A-Z]{2}", code) or code not in COUNTRIES:
        message = "must be a country code of ISO 3166-1 with two upper-case letters, such as TR"
        raise ValueError(message)
    return code


Country = Annotated[str, Field(json_schema_extra={"pattern": _PATTERN}), AfterValidator(_assigned)]
"""The code of a country: ISO 3166-1 alpha-2."""

_ShortLine = Annotated[Line, Field(max_length=100)]
_PostalCode = Annotated[Line, Field(max_length=20)]


class ShippingAddress(Request):
    """Where an order is sent. Personal data: only the orders service stores it, and no event contains it."""

    name: Line
    line1: Line
    line2: Line | None = None
    city: _ShortLine
    postal_code: _PostalCode | None = None
    country: Country
