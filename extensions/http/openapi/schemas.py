"""JSON Schemas for the OpenAPI document, from the Pydantic models that validate requests and build responses."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from contracts.base import Request, View

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/{model}"
NAMED = frozenset({"properties", "$defs"})  # their keys are names of fields or models, not keywords of JSON Schema
VERBATIM = frozenset({"default", "examples", "enum", "const", "required"})


def reference(model: type[BaseModel]) -> Schema:
    """Return a reference to the schema of a model."""
    return {"$ref": REFERENCE.format(model=model.__name__)}


def page_name(view: type[View]) -> str:
    """Return the schema name of a page of views: OrderPage for OrderView."""
    return view.__name__.removesuffix("View") + "Page"


def page(view: type[View]) -> Schema:
    """Return the schema of one page of a list."""
    return {
        "type": "object",
        "description": "One page of a list. `next_cursor` requests the next one; null on the last page.",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": reference(view)},
            "next_cursor": {"type": ["string", "null"]},
        },
    }


def schemas(bodies: Iterable[type[Request]], views: Iterable[type[BaseModel]]) -> Schema:
    """Return the schemas of all these models and of the models that they contain, by name."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in bodies]
    models += [(model, "serialization") for model in views]
    _, found = models_json_schema(sorted(models, key=lambda one: one[0].__name__), ref_template=REFERENCE)
    return {name: tidy(schema) for name, schema in sorted(found.get("$defs", {}).items())}


def query_fields(model: type[Request]) -> dict[str, Schema]:
    """Return the schema of each field of a query, without references and without null, which a query cannot hold."""
    whole = model.model_json_schema(mode="validation")
    definitions = whole.get("$defs", {})
    return {name: tidy(_not_null(field, definitions)) for name, field in whole.get("properties", {}).items()}


def _not_null(field: Schema, definitions: Schema) -> Schema:
    choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
    schema = {key: value for key, value in field.items() if key != "anyOf"} | (choices[0] if choices else {})
    target = schema.pop("$ref", "").rpartition("/")[2]
    return schema | {key: value for key, value in definitions.get(target, {}).items() if key != "description"}


def tidy(schema: Any) -> Any:
    """Remove what carries no information: Pydantic's titles, and null as the default of an optional field."""
    if isinstance(schema, list):
        return [tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for key, value in schema.items():
        if key == "title" or (key == "default" and value is None):
            continue
        if key in NAMED:
            result[key] = {name: tidy(inner) for name, inner in value.items()}
        else:
            result[key] = value if key in VERBATIM else tidy(value)
    return result
