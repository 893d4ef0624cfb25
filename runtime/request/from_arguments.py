"""Methods that take a request's fields as their arguments, so that those are listed once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["from_arguments"]

_Arguments = ParamSpec("_Arguments")
_Owner = TypeVar("_Owner")
_Request = TypeVar("_Request")
_Returned = TypeVar("_Returned")


def from_arguments(
    request: Callable[_Arguments, _Request],
) -> Callable[[Callable[[_Owner, _Request], _Returned]], Callable[Concatenate[_Owner, _Arguments], _Returned]]:
    """Turn a method that takes a request into one that takes its fields, as type checkers and editors then see it.

    Args:
        request: the request's class.

    """
    made: Any = request

    def decorate(
        method: Callable[[_Owner, _Request], _Returned],
    ) -> Callable[Concatenate[_Owner, _Arguments], _Returned]:
        @functools.wraps(method)
        def call(owner: _Owner, /, *args: _Arguments.args, **settings: _Arguments.kwargs) -> _Returned:
            return method(owner, made.from_settings(*args, **settings))

        signature = inspect.signature(method)
        owner = next(iter(signature.parameters.values()))
        fields = inspect.signature(request).parameters.values()
        call.__signature__ = signature.replace(parameters=[owner, *fields])  # type: ignore[attr-defined]
        return call

    return decorate
