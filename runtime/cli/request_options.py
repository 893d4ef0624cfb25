"""A request's fields as options of a command: made of what each field says of itself."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

from ..request.argument import Kind, argument_of
from ..request.request import Request

__all__ = ["settings_from", "with_request_options"]

_OPTIONS = {
    field.name: (argument_of(field), field.default)
    for field in fields(Request)
    if field.name != "prompt" and argument_of(field).kind.written is not None
}


def with_request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that ends with ``**request`` an option for every field of a request that text can say.

    What was not given is not in ``request``; see :func:`settings_from` for the rest.
    """
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    first = next((i for i, p in enumerate(own) if p.name == "engine"), len(own))
    made = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=_annotation(name))
        for name in _OPTIONS
    ]
    parameters = [*own[:first], *made, *own[first:]]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return command


def settings_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that options give: one value of several that are allowed stands alone.

    Raises:
        UsageError: a text cannot be read.

    """
    settings = {}
    for name, value in options.items():
        kind = _OPTIONS[name][0].kind
        if value is None or value == []:
            continue
        if kind.many and len(value) == 1:
            value = value[0]
        settings[name] = kind.parse(_flag(name), value) if kind.parse is not None else value
    return settings


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _annotation(name: str) -> Any:
    said, default = _OPTIONS[name]
    flags = [*(_flag(short) for short in said.short), _flag(name)]
    if said.kind.written is bool:
        flags = [f"{flags[-1]}/--no-{flags[-1][2:]}"]
    option = typer.Option(
        *flags,
        help=_help(said.about) + _default(default),
        metavar=said.kind.metavar,
        rich_help_panel=said.group,
        show_default=False,
    )
    return Annotated[_written(said.kind) | None, option]


def _written(kind: Kind) -> Any:
    return list[kind.written] if kind.many else kind.written  # type: ignore[name-defined]


def _help(about: str) -> str:
    """Return the first sentence; the rest is for those who write Python."""
    sentence = about.partition(". ")[0].removesuffix(".") + "."
    plain = sentence.replace("``", "")
    return plain if sentence.startswith("``") else plain[0].upper() + plain[1:]


def _default(default: Any) -> str:
    return "" if default is None else f" [{','.join(map(str, default)) if isinstance(default, tuple) else default}]"
