"""Every module of gateway/routes is served; an invalid module is named in an error at the start."""

import sys
from types import ModuleType

import pytest

import gateway.routes
from gateway.routes import RoutesError, find_routes
from gateway.service import GatewayService


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Put a module into gateway/routes: `module("parcels", Routes=...)`."""
    monkeypatch.setattr(gateway.routes, "__path__", [*gateway.routes.__path__, str(tmp_path)])

    def put(name, **members):
        (tmp_path / f"{name}.py").touch()
        made = ModuleType(f"gateway.routes.{name}")
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, made.__name__, made)

    return put


def test_the_gateway_serves_all_modules():
    assert set(find_routes()) <= set(GatewayService.__mro__)


def test_a_new_module_is_served(module):
    class Routes:
        """Routes of a new resource."""

    module("parcels", Routes=Routes)
    assert Routes in find_routes()


def test_a_module_without_routes_is_an_error_that_names_it(module):
    module("parcels")
    with pytest.raises(RoutesError, match=r"gateway\.routes\.parcels must define a class `Routes`"):
        find_routes()


def test_two_routes_with_the_same_method_name_are_an_error(module):
    class Routes:
        def get_order(self):
            """Another route has this name."""

    module("parcels", Routes=Routes)
    with pytest.raises(RoutesError, match="get_order"):
        find_routes()
