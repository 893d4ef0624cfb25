"""Refuses arguments of other types than a function's annotations name, in words that say what was wrong.

What a value means (an engine's name, a range) is checked where it is used.
"""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ForwardRef, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

from .errors import UsageError
from .scalars import shortened

__all__ = ["with_checked_types"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_ACCEPTED: dict[Any, tuple[type, ...]] = {
    Path: (os.PathLike,),
    bool: (bool, np.bool_),
    float: (Real,),
    int: (Integral,),
}
"""Where an annotation stands for more than its own class."""
_WORDS: dict[Any, str] = {
    NoneType: "None",
    Path: "a path",
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    str: "text",
}


def with_checked_types(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function refuse arguments whose types are not those of its annotations.

    Numbers may be numpy's, paths anything that has one. Parts of an annotation that are text are not looked at.

    Raises:
        UsageError: by the result; an argument is of another type.

    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            annotation = signature.parameters[name].annotation
            if not _accepts(annotation, value):
                raise UsageError(f"{name}={shortened(value)} must be {' or '.join(dict.fromkeys(_words(annotation)))}")
            if _holds_nul(value):
                raise UsageError(f"{name}={shortened(value)} holds a NUL character, which no name has")
        return function(*args, **kwargs)

    return checked


def _accepts(annotation: Any, value: object) -> bool:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str | ForwardRef):
        return True
    if origin in (Union, UnionType):
        return any(_accepts(part, value) for part in parts)
    if origin is Literal:
        return isinstance(value, str)
    if origin is Sequence:
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(_accepts(parts[0], item) for item in value)  # type: ignore[attr-defined]
    if origin is tuple:
        return isinstance(value, tuple | list)
    if isinstance(value, bool) and annotation in (int, float):
        return False
    return isinstance(value, _ACCEPTED.get(annotation, (origin or annotation,)))


def _holds_nul(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_nul(item) for item in value)
    return isinstance(value, str | os.PathLike) and "\0" in str(value)


def _words(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [word for part in get_args(annotation) for word in _words(part)]
    if origin is Literal:
        return ["text"]
    if origin is Sequence:
        return ["a list of " + " or ".join(dict.fromkeys(_words(get_args(annotation)[0])))]
    if origin is tuple:
        return ["a pair"]
    if origin is Callable or annotation is Callable:
        return ["a function"]
    if isinstance(annotation, ForwardRef):
        return ["sources"]
    return [_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))]
