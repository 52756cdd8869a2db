"""Finds the changes of the API that break existing clients, by comparing two OpenAPI documents.

A request that was valid must stay valid, and a response must keep its fields and types. Where the comparison cannot
decide, for example between two different patterns, it reports a breaking change. A removed enum value or error code is
a breaking change too, because a client may expect it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
ACCESS = ("anyone", "optional", "user", "admin")
# Keyword: whether a larger value is stricter.
BOUNDS = {
    "minimum": True,
    "maximum": False,
    "minLength": True,
    "maxLength": False,
    "minItems": True,
    "maxItems": False,
    "minProperties": True,
    "maxProperties": False,
}
EXACT = ("format", "pattern", "not")


@dataclass(frozen=True, order=True)
class Change:
    """A breaking change: the operation (`POST /orders`), the place in it, and a description."""

    operation: str
    subject: str
    what: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.subject + ': ' if self.subject else ''}{self.what}"


def incompatible(old: Schema, new: Schema) -> list[Change]:
    """Return the breaking changes from `old` to `new`. Aliases are skipped: they change with their operation."""
    found: list[Change] = []
    for path, methods in old["paths"].items():
        for method, previous in methods.items():
            name = f"{method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                found.append(Change(name, "", "is gone"))
            elif "x-alias-of" not in now:
                changes = _Operations(old, new).compare(previous, now)
                found += [Change(name, subject, what) for subject, what in changes]
    return sorted(set(found))


def unannounced(changes: list[Change], changelog: str) -> list[Change]:
    """Return the changes without a line in the changelog under Unreleased, Breaking.

    Such a line names the operation and the place of the change, each in backticks.
    """
    unreleased = changelog.partition("\n## Unreleased\n")[2].partition("\n## ")[0]
    announced = unreleased.partition("\n### Breaking\n")[2].partition("\n### ")[0].replace("\n  ", " ").splitlines()
    return [
        change
        for change in changes
        if not any(
            f"`{change.operation}`" in line and (not change.subject or f"`{change.subject}`" in line)
            for line in announced
        )
    ]


class _Operations:
    """Compares operations of two documents. The methods yield (place, description) of each breaking change."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self.schemas = _Schemas(old, new)
        self.old, self.new = old, new

    def compare(self, previous: Schema, now: Schema) -> Iterator[tuple[str, str]]:
        if previous["operationId"] != now["operationId"]:
            yield "operationId", f"{previous['operationId']} is now {now['operationId']}"
        if ACCESS.index(previous["x-access"]) < ACCESS.index(now["x-access"]):
            yield "access", f"{previous['x-access']} is now {now['x-access']}"
        yield from self._parameters(previous, now)
        yield from self._body(previous.get("requestBody"), now.get("requestBody"))
        yield from self._responses(previous["responses"], now["responses"])

    def _parameters(self, previous: Schema, now: Schema) -> Iterator[tuple[str, str]]:
        before, after = _parameters(self.old, previous), _parameters(self.new, now)
        for key, parameter in before.items():
            if key not in after:
                yield key, "is gone"
            else:
                yield from self.schemas.compare(parameter["schema"], after[key]["schema"], key, sent=True)
        for key, parameter in after.items():
            if parameter.get("required") and not before.get(key, {}).get("required"):
                yield key, "is required"

    def _body(self, previous: Schema | None, now: Schema | None) -> Iterator[tuple[str, str]]:
        if now is None:
            if previous is not None:
                yield "body", "is no longer taken"
        elif previous is None:
            if now.get("required"):
                yield "body", "is required"
        else:
            if now.get("required") and not previous.get("required"):
                yield "body", "is required"
            for kind, content in previous["content"].items():
                if kind not in now["content"]:
                    yield "body", f"{kind} is no longer taken"
                else:
                    yield from self.schemas.compare(
                        content["schema"], now["content"][kind]["schema"], "body", sent=True
                    )

    def _responses(self, previous: Schema, now: Schema) -> Iterator[tuple[str, str]]:
        for status, response in previous.items():
            if status not in now:
                yield status, "is no longer returned"
                continue
            before, after = _resolve(self.old, response), _resolve(self.new, now[status])
            for header in before.get("headers", {}).keys() - after.get("headers", {}).keys():
                yield f"{status} {header}", "is no longer sent"
            for kind, content in before.get("content", {}).items():
                if kind not in after.get("content", {}):
                    yield status, f"{kind} is no longer returned"
                else:
                    schema = after["content"][kind]["schema"]
                    yield from self.schemas.compare(content["schema"], schema, status, sent=False)


class _Schemas:
    """Compares schemas: those that clients send (`sent`) must not become stricter, those of responses not looser."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self.old, self.new = old, new

    def compare(self, old: Schema, new: Schema, where: str, *, sent: bool) -> Iterator[tuple[str, str]]:
        before_parts, after_parts = _parts(old), _parts(new)
        if len(before_parts) > 1 and len(after_parts) > 1:
            for before, after in zip(before_parts, after_parts, strict=False):
                yield from self.compare(before, after, where, sent=sent)
            return
        old, new = _resolve(self.old, old), _resolve(self.new, new)
        before, after = _by_type(self.old, old), _by_type(self.new, new)
        lost = before.keys() - after.keys() if sent else after.keys() - before.keys()
        if lost:
            yield where, f"{'no longer takes' if sent else 'can now be'} {', '.join(sorted(lost))}"
        for kind in before.keys() & after.keys():
            yield from self._of_one_type(before[kind], after[kind], where, sent=sent)

    def _of_one_type(self, old: Schema, new: Schema, where: str, *, sent: bool) -> Iterator[tuple[str, str]]:
        for keyword, larger_is_stricter in BOUNDS.items():
            before, after = old.get(keyword), new.get(keyword)
            if before != after and _is_narrower(before, after, larger_is_stricter) == sent:
                yield where, f"{keyword} {before} is now {after}"
        for keyword in EXACT:
            before, after = old.get(keyword), new.get(keyword)
            if before != after and (after if sent else before) is not None:
                yield where, f"{keyword} {before} is now {after}"
        yield from _enums(old, new, where, sent=sent)
        yield from self._fields(old, new, where, sent=sent)
        if "items" in old and "items" in new:
            yield from self.compare(old["items"], new["items"], f"{where}[]", sent=sent)

    def _fields(self, old: Schema, new: Schema, where: str, *, sent: bool) -> Iterator[tuple[str, str]]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required, now_required = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in before.items():
            place = f"{where}.{name}"
            if name not in after:
                yield place, "is gone"
            else:
                yield from self.compare(schema, after[name], place, sent=sent)
        for name in now_required - required if sent else (required - now_required) & after.keys():
            yield f"{where}.{name}", "is required" if sent else "can be absent"
        values, now_values = old.get("additionalProperties"), new.get("additionalProperties")
        if sent and values is not False and now_values is False:
            yield where, "no longer takes other fields"
        if isinstance(values, dict) and isinstance(now_values, dict):
            yield from self.compare(values, now_values, f"{where}.*", sent=sent)


def _parts(schema: Schema) -> list[Schema]:
    """Return the schemas that hold together: those of an allOf, or a reference and the keywords beside it."""
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    if "$ref" in schema and beside:
        return [{"$ref": schema["$ref"]}, beside]
    return schema.get("allOf", [schema])


def _enums(old: Schema, new: Schema, where: str, *, sent: bool) -> Iterator[tuple[str, str]]:
    before, after = _values(old), _values(new)
    if before is not None and after is not None:
        for value in before - after:
            yield where, f"{value} is gone"
    elif before is None and after is not None and sent:
        yield where, f"takes only {', '.join(sorted(after))}"
    elif before is not None and after is None and not sent:
        yield where, "can now be anything"


def _values(schema: Schema) -> set[str] | None:
    if "const" in schema:
        return {str(schema["const"])}
    return {str(value) for value in schema["enum"]} if "enum" in schema else None


def _is_narrower(before: Any, after: Any, larger_is_stricter: bool) -> bool:
    if before is None or after is None:
        return after is not None
    return (after > before) == larger_is_stricter


def _by_type(document: Schema, schema: Schema) -> dict[str, Schema]:
    """Return the alternatives of a schema by their type; `any` if an alternative states no type."""
    if "anyOf" in schema:
        options = [_resolve(document, option) for option in schema["anyOf"]]
        return {kind: found for option in options for kind, found in _by_type(document, option).items()}
    kinds = schema.get("type", "any")
    return dict.fromkeys([kinds] if isinstance(kinds, str) else kinds, schema)


def _parameters(document: Schema, operation: Schema) -> dict[str, Schema]:
    found = [_resolve(document, parameter) for parameter in operation.get("parameters", ())]
    return {f"{parameter['in']} {parameter['name']}": parameter for parameter in found}


def _resolve(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        target: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    return schema
