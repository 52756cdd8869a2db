"""The routing table: from a path and a method to a route. Decision 0014 says why it is not Werkzeug's."""

from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import unquote

from extensions.http.message.errors import MethodNotAllowed, PathNotFound

# No route has as many. A path of thousands must not cost more than others.
MAX_SEGMENTS = 20


class _Node:
    """One path segment of the tree of all paths. A fixed name wins over a parameter: /orders/all is no order's id."""

    __slots__ = ("fixed", "methods", "parameter", "parameter_name")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.parameter_name = ""
        self.methods: dict[str, Any] = {}

    def child(self, segment: str) -> "_Node":
        """Return the node below for `segment`; create it where it is new."""
        if not segment.startswith("{"):
            return self.fixed.setdefault(segment, _Node())
        name = segment.strip("{}")
        if self.parameter is None:
            self.parameter, self.parameter_name = _Node(), name
        elif self.parameter_name != name:
            raise ValueError(f"two names for one path segment: {{{self.parameter_name}}} and {{{name}}}")
        return self.parameter


class RouteTable:
    """All paths of the API with their methods."""

    def __init__(self, routes: Iterable[Any]) -> None:
        """`routes` have `method`, `path` and `aliases`. Raises ValueError for two routes of one path and method."""
        self._root = _Node()
        self._methods: set[str] = set()
        for route in routes:
            for path in (route.path, *route.aliases):
                self._add(route, path)

    def _add(self, route: Any, path: str) -> None:
        node = self._root
        for segment in _segments(path):
            node = node.child(segment)
        if route.method in node.methods:
            raise ValueError(f"two routes for {route.method} {path}")
        node.methods[route.method] = route
        self._methods.add(route.method)

    def allowed(self, path: str) -> list[str]:
        """Return the methods of `path`; for `*` the methods of all paths. Raises PathNotFound."""
        if path == "*":
            return _allowed(self._methods)
        node, _ = self._find(path)
        return _allowed(node.methods)

    def match(self, method: str, path: str) -> tuple[Any, dict[str, str]]:
        """Return the route and the values of its path parameters. Raises PathNotFound, MethodNotAllowed."""
        node, parameters = self._find(path)
        route = node.methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise MethodNotAllowed(_allowed(node.methods))
        return route, parameters

    def _find(self, path: str) -> tuple[_Node, dict[str, str]]:
        node, parameters = self._root, {}
        for segment in _segments(path):
            child = node.fixed.get(segment)
            if child is None and segment and node.parameter is not None:
                parameters[node.parameter_name] = segment
                child = node.parameter
            if child is None:
                raise PathNotFound
            node = child
        if not node.methods:
            raise PathNotFound
        return node, parameters


def _segments(path: str) -> list[str]:
    """Split a path into its decoded segments. One trailing slash is ignored. Of a very long path, the rest is one."""
    return [unquote(segment) for segment in path.removeprefix("/").removesuffix("/").split("/", MAX_SEGMENTS)]


def _allowed(methods: Collection[str]) -> list[str]:
    return sorted({*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))
