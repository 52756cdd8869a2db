"""The rows of an import's file: CSV with a header line, or JSON lines. Reads as it goes, and keeps one row.

Values of CSV are texts: `true` and `false` become booleans and digits numbers where the field is one, and an empty cell
of a field that need not be stated is left out.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from contracts.errors import FieldError
from contracts.validation import field_errors, surplus_fields

MAX_LINE_LETTERS = 64 * 1024
MAX_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the line in which it begins, and either its values or what is wrong with it."""

    line: int
    values: Mapping[str, Any] | None
    errors: tuple[FieldError, ...] = ()


class Unreadable(Exception):
    """The rest of the file cannot be read; the text says why."""


def rows_of(file_format: str, chunks: Iterable[str], model: type[BaseModel]) -> Iterator[Row]:
    """Yield the rows of a file, validated with `model`. The last one has the error of a file that cannot be read on."""
    lines = _Lines(chunks)
    try:
        raw = _csv_rows(lines, model) if file_format == "csv" else _json_rows(lines)
        for line, values in raw:
            yield _validated(line, values, model)
    except (Unreadable, csv.Error) as error:
        yield Row(max(lines.number, 1), None, (FieldError("", str(error)),))


class _Lines:
    """The lines of a text that comes in chunks, with their line feeds. `number` is that of the last one."""

    def __init__(self, chunks: Iterable[str]) -> None:
        self._chunks, self.number = chunks, 0

    def __iter__(self) -> Iterator[str]:
        rest = ""
        for chunk in self._chunks:
            *complete, rest = (rest + chunk).split("\n")
            for line in complete:
                yield self._checked(line + "\n")
            if len(rest) > MAX_LINE_LETTERS:
                self._checked(rest)
        if rest:
            yield self._checked(rest)

    def _checked(self, line: str) -> str:
        self.number += 1
        if len(line) > MAX_LINE_LETTERS:
            raise Unreadable(f"the line has more than {MAX_LINE_LETTERS} characters; the rest of the file was not read")
        return line


def _csv_rows(lines: _Lines, model: type[BaseModel]) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(MAX_LINE_LETTERS)
    reader = csv.reader(lines, strict=True)
    names = next(reader, None)
    if not names:
        raise Unreadable("the first line must name the columns")
    _check_columns(names, model)
    converters = [_converter(model, name) for name in names]
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    begins = reader.line_num + 1
    for cells in reader:
        if cells:
            yield begins, _named(names, cells, converters, optional)
        begins = reader.line_num + 1


def _check_columns(names: list[str], model: type[BaseModel]) -> None:
    known = model.model_fields
    unknown = [name for name in names[:MAX_COLUMNS] if name not in known]
    if unknown:
        raise Unreadable(f"{unknown[0][:64]!r} is not a known column; there are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise Unreadable("a column is named twice")
    missing = [name for name, field in known.items() if field.is_required() and name not in names]
    if missing:
        raise Unreadable(f"the column {missing[0]} is required")


def _named(names: list[str], cells: list[str], converters: list[Any], optional: set[str]) -> Any:
    if len(cells) != len(names):
        return FieldError("", f"has {len(cells)} cells, and the header {len(names)}")
    named = zip(names, cells, converters, strict=True)
    return {name: convert(cell) for name, cell, convert in named if cell or name not in optional}


def _converter(model: type[BaseModel], name: str) -> Any:
    annotation = model.model_fields[name].annotation
    types = (annotation, *get_args(annotation))
    if bool in types:
        return lambda cell: {"true": True, "false": False}.get(cell.lower(), cell)
    if int in types:
        return lambda cell: int(cell) if cell.isascii() and cell.isdigit() and len(cell) <= 18 else cell
    return str


def _json_rows(lines: _Lines) -> Iterator[tuple[int, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            yield lines.number, FieldError("", "is not valid JSON")
        else:
            yield lines.number, value if isinstance(value, dict) else FieldError("", "must be an object")


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _validated(line: int, values: Any, model: type[BaseModel]) -> Row:
    if isinstance(values, FieldError):
        return Row(line, None, (values,))
    surplus = surplus_fields(model, values)
    if surplus:
        return Row(line, None, tuple(surplus))
    try:
        return Row(line, model.model_validate(values).model_dump(mode="json", exclude_unset=True))
    except ValidationError as error:
        return Row(line, None, tuple(field_errors(error)))
