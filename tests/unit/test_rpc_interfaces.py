"""Each service serves its Protocol in contracts/: every method, with the same signature, and no other methods."""

import inspect
import warnings
from importlib import import_module
from types import SimpleNamespace
from typing import Protocol, get_type_hints

import pytest
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR

from contracts.services import SERVICES, Services
from extensions.rpc.server import Rpc, RpcServer, missing_methods, rpc
from extensions.rpc.signature import WireArguments, WireSignature, rpc_methods

INTERFACES = get_type_hints(Services)


def service_class(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = import_module(f"{name}.service")
    (found,) = [kind for kind in vars(module).values() if getattr(kind, "name", None) == name]
    return found


def served(service):
    """The RPC methods of a service by name."""
    methods = inspect.getmembers(service, inspect.isfunction)
    return {
        name: method
        for name, method in methods
        if any(isinstance(one, Rpc) for one in getattr(method, ENTRYPOINT_EXTENSIONS_ATTR, ()))
    }


def parameters(method):
    """Return the typed parameters of a method, without those that callers do not send."""
    hints = get_type_hints(method)
    found = inspect.signature(method).parameters.values()
    return [
        (one.name, one.kind, one.default, hints.get(one.name))
        for one in found
        if hints.get(one.name) is not WireArguments
    ] + [hints["return"]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_serves_its_interface_and_nothing_else(name):
    service, interface = service_class(name), INTERFACES[name]
    assert interface in service.__mro__, f"write class {service.__name__}(operations.Operations, {interface.__name__})"
    assert missing_methods(service, served(service)) == []
    assert served(service).keys() == rpc_methods(interface).keys()


@pytest.mark.parametrize("name", SERVICES)
def test_the_signatures_are_the_same(name):
    methods = served(service_class(name))
    for method_name, declared in rpc_methods(INTERFACES[name]).items():
        method = methods[method_name]
        assert parameters(method) == parameters(declared), f"{name}.{method_name}"
        assert str(method.wire_signature.wire) == str(WireSignature(declared).wire), f"{name}.{method_name}"


def test_a_missing_method_is_found():
    class Greeter(Protocol):
        def greet(self) -> str: ...

        def part(self) -> str: ...

    class Rude(Greeter):
        @rpc(transaction=False)
        def greet(self) -> str:
            return "hello"

    assert missing_methods(Rude, served(Rude)) == ["Greeter.part"]
    server = RpcServer()
    server.container = SimpleNamespace(service_cls=Rude, service_name="rude")
    with pytest.raises(NotImplementedError, match=r"rude does not serve: Greeter.greet, Greeter.part\."):
        server.start()
