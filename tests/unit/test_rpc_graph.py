"""The graph of RPC calls, read from the source: no cycle, and no call from a handler of an event or a timer.

All workers of a service share one pool. Two services that call each other, or a handler that waits for a service that
waits for it, can fill their pools with workers that wait for each other (pitfall 11). The gateway serves no RPC, so no
service can wait for it, and its timers may call others.
"""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from contracts.call_permissions import CALLS
from contracts.services import PROCESSES, SERVICES

ROOT = Path(__file__).parent.parent.parent
ANY = "any service"
BY_COMPUTED_NAME = {"operated", "participant"}
NO_SERVICE = BY_COMPUTED_NAME | {"within"}
WITHOUT_A_CALLER = {"handles", "periodic", "on_broadcast"}


def parse(path):
    return ast.parse((ROOT / path).read_text())


def is_client(node):
    """Is this expression the RPC client: `self.services`, `services`, `self.services.within(2)`?"""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "within":
        return is_client(node.func.value)
    return (isinstance(node, ast.Attribute) and node.attr == "services") or (
        isinstance(node, ast.Name) and node.id == "services"
    )


def is_by_computed_name(node):
    """Is this call `self.services.operated(name)` or `getattr(self.services, name)`?"""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in BY_COMPUTED_NAME and is_client(node.func.value)
    return getattr(node.func, "id", "") == "getattr" and is_client(node.args[0])


def called(tree):
    """The services that `tree` calls; `ANY` where the name is computed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_client(node.value) and node.attr != "within":
            yield ANY if node.attr in BY_COMPUTED_NAME else node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr" and is_client(node.args[0]):
            yield ANY


def methods_called(service):
    """Every `<service>.<method>` that a service's code calls; `*` where the name of the service is computed."""
    trees = [parse(path) for path in (ROOT / service).rglob("*.py") if "migrations" not in path.parts]
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)):
        callee = node.value
        if isinstance(callee, ast.Attribute) and is_client(callee.value) and callee.attr not in NO_SERVICE:
            yield f"{callee.attr}.{node.attr}"
        elif isinstance(callee, ast.Call) and is_by_computed_name(callee):
            yield f"*.{node.attr}"


def calls_of(service):
    """The services that a service's code calls, anywhere."""
    trees = [parse(path) for path in (ROOT / service).rglob("*.py") if "migrations" not in path.parts]
    names = {name for tree in trees for name in called(tree)}
    others = set(SERVICES) - {service}  # a computed name is never the service itself or the gateway
    return names - {ANY} | (others if ANY in names else set())


def methods_of(*paths):
    """All methods and functions of some modules by name."""
    return {node.name: node for path in paths for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef)}


def decorators(function):
    for decorator in function.decorator_list:
        called_with = decorator.func if isinstance(decorator, ast.Call) else decorator
        yield getattr(called_with, "id", getattr(called_with, "attr", ""))


def reachable(start, methods):
    """The methods that `start` may run, including itself."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in found or name not in methods:
            continue
        found.add(name)
        mentioned = (getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(methods[name]))
        waiting.extend(mentioned)
    return found


def test_the_call_graph_has_no_cycle():
    graph = {service: calls_of(service) for service in PROCESSES}
    assert graph["orders"] >= {"catalog"}, "the test does not find the existing calls"
    assert graph["gateway"] == set(SERVICES)
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("service", PROCESSES)
def test_the_contract_allows_exactly_the_existing_calls(service):
    """The broker refuses what contracts/call_permissions.py does not name."""
    allowed, made = set(CALLS.get(service, ())), set(methods_called(service))
    for call in made:
        callee, _, method = call.partition(".")
        assert callee in {*SERVICES, "*"}, f"{service} calls {callee}: add it to contracts/services.py"
        if callee == "*":
            assert {one for one in allowed if one.endswith((f".{method}", ".*"))}, f"no call of {method} is allowed"
        else:
            assert {call, f"{callee}.*"} & allowed, f"{service} calls {call}: name it in contracts/call_permissions.py"
    for call in allowed:
        callee, _, method = call.partition(".")
        used = {one for one in made if one in {call, f"*.{method}"} or (method == "*" and one.startswith(f"{callee}."))}
        assert used, f"{service} does not call {call}: remove it from contracts/call_permissions.py"


def test_the_gateway_serves_no_rpc():
    methods = [node for path in (ROOT / "gateway").rglob("*.py") for node in methods_of(path).values()]
    assert methods
    assert not [method.name for method in methods if "rpc" in decorators(method)]


def test_no_event_and_no_timer_waits_for_another_service():
    for service in SERVICES:
        seen = 0
        methods = methods_of(f"{service}/service.py", "extensions/operations/operations.py")
        for name, method in methods.items():
            if not WITHOUT_A_CALLER & set(decorators(method)):
                continue
            seen += 1
            callers = [one for one in reachable(name, methods) if set(called(methods[one]))]
            assert not callers, f"{service}.{name} reaches RPC in {callers}"
        source = (ROOT / service / "service.py").read_text() + (
            ROOT / "extensions/operations/operations.py"
        ).read_text()
        assert seen == len(re.findall(r"^    @(handles|periodic)\b", source, re.MULTILINE)), "some are not found"
