"""Errors keep their class and their fields when they are sent between services."""

import json
import pkgutil
import re
from importlib import import_module

import pytest

import contracts
from contracts.errors import FieldError, ServiceError, ServiceUnavailable, ValidationFailed

MODULES = [import_module(f"contracts.{module.name}") for module in pkgutil.iter_modules(contracts.__path__)]


def kinds_of(parent):
    """All subclasses that the contracts define."""
    for kind in parent.__subclasses__():
        if kind.__module__.startswith("contracts."):
            yield kind
        yield from kinds_of(kind)


KINDS = sorted(set(kinds_of(ServiceError)), key=lambda kind: kind.__name__)
by_kind = pytest.mark.parametrize("kind", [ServiceError, *KINDS], ids=lambda kind: kind.__name__)


@by_kind
@pytest.mark.parametrize("detail", [None, "A specific detail: ğüş."])
def test_an_error_arrives_as_it_was_raised(kind, detail):
    raised = kind(detail, [FieldError("items[0].quantity", "too many"), FieldError("", "all wrong")], retry_after=3)
    arrived = ServiceError.from_wire(json.loads(json.dumps(raised.to_wire())))
    assert type(arrived) is kind
    assert str(arrived) == str(raised) == (detail or kind.detail)
    assert (arrived.errors, arrived.retry_after) == (raised.errors, 3)


@by_kind
def test_an_error_has_a_code_a_status_and_a_detail(kind):
    assert re.fullmatch(r"[A-Z][A-Z_]+[A-Z]", kind.code)
    assert 400 <= kind.status < 600
    assert kind.detail.endswith(".")


def test_names_are_unique_because_errors_are_sent_by_name():
    assert len({kind.__name__ for kind in KINDS}) == len(KINDS) > 15


def test_an_error_of_a_newer_version_is_an_internal_one():
    arrived = ServiceError.from_wire({"name": "FromTheFuture", "detail": "It is different."})
    assert (type(arrived), arrived.code, arrived.status) == (ServiceError, "INTERNAL_ERROR", 500)
    assert str(ServiceError.from_wire({})) == ServiceError.detail


def test_the_detail_of_a_validation_error_repeats_its_fields():
    error = ValidationFailed.of([FieldError("limit", "too high"), FieldError("", "no object")])
    assert str(error) == "limit: too high; body: no object"
    assert ValidationFailed.field("id", "must be a UUID").errors == (FieldError("id", "must be a UUID"),)


def test_every_error_of_a_contract_is_tested():
    defined = {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ServiceError) and kind.__module__ == module.__name__
    }
    assert defined == {ServiceError, *KINDS}


def test_an_error_class_outside_the_contracts_is_sent_as_its_base_class():
    class DiskUnavailable(ServiceUnavailable):
        """An error class of one service."""

        detail = "The disk is unavailable."

    wire = DiskUnavailable().to_wire()
    assert wire["name"] == "ServiceUnavailable"
    assert str(ServiceError.from_wire(wire)) == "The disk is unavailable."
    assert ServiceError.from_wire(wire).status == 503
