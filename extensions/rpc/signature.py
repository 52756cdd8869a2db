"""How the typed arguments of an RPC method are sent: as a flat JSON object, by the *wire signature* of the method.

    def create_order(self, order: CreateOrder, *, actor: Actor = OPERATOR, idempotency_key: str | None = None)

has the wire signature `(items, total_amount=None, ..., actor=None, idempotency_key=None)`: the fields of a request
replace its parameter. Client and server derive it from the annotations: the client to encode, the server to decode.
"""

import inspect
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from inspect import BoundArguments, Parameter, Signature
from itertools import takewhile
from typing import Any, get_type_hints
from uuid import UUID

from contracts.base import Actor, Request
from contracts.ids import parse_id


class WireArguments(dict[str, Any]):
    """The arguments of a call as they arrived, by their names on the wire. Arguments that the caller omits are missing.

    A service method with a parameter of this type gets them in addition to the typed arguments. Callers do not send it.
    """


class _Plain:
    """A parameter that is sent as it is."""

    def __init__(self, parameter: Parameter) -> None:
        self.name, self.default = parameter.name, parameter.default
        self._kind = parameter.kind

    def wire(self) -> list[Parameter]:
        """Return the parameters of the wire signature that replace this one."""
        if self._kind in _VARIADIC:
            return [Parameter(self.name, self._kind)]
        return [Parameter(self.name, _EITHER, default=_optional(self.default is not Parameter.empty))]

    def encode(self, value: Any) -> dict[str, Any]:
        """Return the arguments that are sent for `value`: none for the default."""
        return {} if value is self.default else {self.name: self._to_json(value)}

    def decode(self, arguments: Mapping[str, Any], typed: dict[str, Any]) -> None:
        """Add the typed argument to `typed`, unless the caller left it out. Raises ValidationFailed."""
        if self.name in arguments:
            typed[self.name] = self._of_json(arguments[self.name])

    def _to_json(self, value: Any) -> Any:
        return value

    def _of_json(self, value: Any) -> Any:
        return value


class _Id(_Plain):
    """A UUID, which is sent as a string."""

    def _to_json(self, value: UUID) -> str:
        return str(value)

    def _of_json(self, value: Any) -> UUID:
        return parse_id(self.name, value)


class _Actor(_Plain):
    """The actor, who is sent as a JSON object, or as null if it is the operator."""

    def _to_json(self, value: Actor) -> dict[str, Any] | None:
        return None if value.user_id is None else {"user_id": str(value.user_id), "roles": list(value.roles)}

    def _of_json(self, value: Any) -> Actor:
        return Actor.of(value)


class _Fields(_Plain):
    """A request. Those of its fields that are set are sent as separate arguments."""

    def __init__(self, parameter: Parameter, model: type[Request]) -> None:
        super().__init__(parameter)
        self._model, self._fields = model, _fields(model)
        self._sent = set(self._fields)

    def wire(self) -> list[Parameter]:
        """Return one parameter for each field, optional where the field has a default.

        A required field after an optional one is optional too: Python allows no other parameter there. `decode` names
        it if it is missing.
        """
        fields = [(name, self._model.model_fields[name].is_required()) for name in self._fields]
        leading = sum(1 for _ in takewhile(operator.itemgetter(1), fields))
        return [
            Parameter(name, _EITHER, default=_optional(position >= leading))
            for position, (name, _) in enumerate(fields)
        ]

    def encode(self, value: Request) -> dict[str, Any]:
        """Return the fields that are set. Further fields of a subclass of the annotated type are left out."""
        return value.model_dump(mode="json", exclude_unset=True, include=self._sent)

    def decode(self, arguments: Mapping[str, Any], typed: dict[str, Any]) -> None:
        """Add the request with the fields that arrived."""
        typed[self.name] = self._model.parse({name: arguments[name] for name in self._fields if name in arguments})


class _OtherFields(_Fields):
    """A keyword-only request. It gets all arguments that no other parameter has; its error lists unknown fields."""

    def wire(self) -> list[Parameter]:
        """Return `**name`."""
        return [Parameter(self.name, Parameter.VAR_KEYWORD)]

    def decode(self, arguments: Mapping[str, Any], typed: dict[str, Any]) -> None:
        """Add the request with the remaining arguments."""
        typed[self.name] = self._model.parse(arguments.get(self.name, {}))


class _Arrived(_Plain):
    """A parameter for the WireArguments themselves."""

    def wire(self) -> list[Parameter]:
        """Return nothing: no caller states it."""
        return []

    def decode(self, arguments: Mapping[str, Any], typed: dict[str, Any]) -> None:
        """Add all arguments."""
        typed[self.name] = WireArguments(arguments)


class WireSignature:
    """Encodes calls of one method for the wire, and decodes them to calls of the method."""

    def __init__(self, method: Callable[..., Any]) -> None:
        """Read the annotations of `method`, a function whose first parameter is `self`."""
        self._typed = _without_self(inspect.signature(method))
        hints = get_type_hints(method)
        self._parameters = {
            name: _parameter(parameter, hints.get(name)) for name, parameter in self._typed.parameters.items()
        }
        self._is_variadic = any(one.kind in _VARIADIC for one in self._typed.parameters.values())
        self._positional = [name for name, one in self._typed.parameters.items() if one.kind is _EITHER]

    @cached_property
    def wire(self) -> Signature:
        """The parameters of the method on the wire. A caller may pass each by name or by position."""
        return Signature([one for parameter in self._parameters.values() for one in parameter.wire()])

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by their names. Raises TypeError if one is missing, unknown or too many."""
        return self.wire.bind(*args, **kwargs).arguments

    def decode(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the typed arguments by their names. `arguments` is the result of `bind`.

        Raises ValidationFailed for the first invalid argument.
        """
        typed: dict[str, Any] = {}
        for parameter in self._parameters.values():
            parameter.decode(arguments, typed)
        return typed

    def call(self, method: Callable[..., Any], service: Any, arguments: Mapping[str, Any]) -> Any:
        """Decode the result of `bind`, and call `method` of a service with it. Raises ValidationFailed."""
        typed = self.decode(arguments)
        if not self._is_variadic:
            return method(service, **typed)
        bound = BoundArguments(self._typed, OrderedDict(typed))
        return method(service, *bound.args, **bound.kwargs)

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as they are sent, by their names on the wire."""
        wire: dict[str, Any] = {}
        for name, value in self._named(args, kwargs).items():
            wire |= self._parameters[name].encode(value)
        return wire

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        named = dict(zip(self._positional, args, strict=False)) | dict(kwargs)
        if len(named) < len(args) + len(kwargs) or not named.keys() <= self._parameters.keys():
            self._typed.bind(*args, **kwargs)  # raises TypeError, which says what is wrong
        return named


def rpc_methods(interface: type) -> dict[str, Callable[..., Any]]:
    """Return the methods of an RPC interface (a Protocol), including inherited ones."""
    members = inspect.getmembers(interface, inspect.isfunction)
    return {name: method for name, method in members if not name.startswith("_")}


_EITHER = Parameter.POSITIONAL_OR_KEYWORD
_VARIADIC = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def _optional(optional: bool) -> Any:
    """Return the default of a wire parameter. Its value does not matter, because omitted arguments are not decoded."""
    return None if optional else Parameter.empty


def _without_self(signature: Signature) -> Signature:
    _, *others = signature.parameters.values()
    return signature.replace(parameters=others)


def _parameter(parameter: Parameter, hint: Any) -> _Plain:
    if hint is UUID:
        return _Id(parameter)
    if not isinstance(hint, type):
        return _Plain(parameter)
    if issubclass(hint, Actor):
        return _Actor(parameter)
    if issubclass(hint, WireArguments):
        return _Arrived(parameter)
    if issubclass(hint, Request):
        return (_OtherFields if parameter.kind is Parameter.KEYWORD_ONLY else _Fields)(parameter, hint)
    return _Plain(parameter)


def _fields(model: type[Request]) -> tuple[str, ...]:
    """Return the fields of a request in the order of the wire signature: its own fields, then inherited ones."""
    own = [name for kind in model.__mro__ for name in inspect.get_annotations(kind)]
    return tuple(name for name in dict.fromkeys(own) if name in model.model_fields)
