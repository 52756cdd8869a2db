"""The routes of the REST API: a module for each resource, with its routes in a class `Routes`."""

import importlib
import pkgutil
from collections import Counter
from typing import TYPE_CHECKING

# In the OpenAPI document these resources come first, in the order in which a client meets them. The others follow.
FIRST = (
    "users",
    "session",
    "products",
    "orders",
    "inventory",
    "payments",
    "notifications",
    "webhooks",
    "admin",
    "health",
    "docs",
)


class RoutesError(Exception):
    """A module of routes cannot be served; the text says which and why."""


def find_routes() -> tuple[type, ...]:
    """Return the class `Routes` of every module in this folder.

    Raises RoutesError for a module without one, and for a method that two modules define: one would hide the other.
    """
    names = sorted((one.name for one in pkgutil.iter_modules(__path__)), key=_place)
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    missing = [module.__name__ for module in modules if not hasattr(module, "Routes")]
    if missing:
        raise RoutesError(f"{', '.join(missing)} must define a class `Routes` with its routes")
    found = tuple(module.Routes for module in modules)
    methods = Counter(name for routes in found for name in vars(routes) if not name.startswith("__"))
    twice = sorted(name for name, count in methods.items() if count > 1)
    if twice:
        raise RoutesError(f"several modules of {__name__} define {', '.join(twice)}: rename all but one")
    return found


def _place(name: str) -> tuple[int, str]:
    return FIRST.index(name) if name in FIRST else len(FIRST), name


if TYPE_CHECKING:

    class AllRoutes:
        """For mypy, which accepts no class that is made at run time as a base class."""

else:
    AllRoutes = type("AllRoutes", find_routes(), {})
"""The routes of all modules. gateway/service.py, the base class of which this is, imports this module and not the
class: Nameko starts every class with entrypoints that is a name in a service.py."""
