"""Replaces a command's parameter by options that are listed elsewhere."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["with_options"]


def with_options(
    parameter: str, options: Mapping[str, tuple[Any, Any]], collect: Callable[[dict[str, Any]], Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter by options.

    Args:
        parameter: the parameter's name; the command is called with what ``collect`` returns.
        options: annotation and default of each option, by name, as Typer reads them.
        collect: called with the options' values.

    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)

        @functools.wraps(command)
        def call(**values: Any) -> None:
            command(**{parameter: collect({name: values.pop(name) for name in options}), **values})

        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in options.items()
        ]
        listed: list[inspect.Parameter] = []
        for own in signature.parameters.values():
            listed += made if own.name == parameter else [own.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        call.__signature__ = signature.replace(parameters=listed)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in listed} | {"return": None}
        return call

    return decorate
