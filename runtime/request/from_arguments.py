"""Methods whose arguments are the fields of a request, so that these are listed only once."""

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
    """Turn a method that takes a request into one that takes the request's fields as arguments.

    Type checkers and editors see these arguments.

    Args:
        request: the request's class.

    """
    request_class: Any = request

    def decorate(
        method: Callable[[_Owner, _Request], _Returned],
    ) -> Callable[Concatenate[_Owner, _Arguments], _Returned]:
        @functools.wraps(method)
        def call(owner: _Owner, /, *args: _Arguments.args, **settings: _Arguments.kwargs) -> _Returned:
            return method(owner, request_class.from_settings(*args, **settings))

        signature = inspect.signature(method)
        owner = next(iter(signature.parameters.values()))
        fields = inspect.signature(request).parameters.values()
        call.__signature__ = signature.replace(parameters=[owner, *fields])  # type: ignore[attr-defined]
        return call

    return decorate
