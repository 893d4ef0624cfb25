"""A request's fields as options of a command, made from each field's own description."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

from ..request.argument import Kind, argument_of
from ..request.request import Request
from .made_options import with_options

__all__ = ["with_request_options"]

_OPTIONS = {
    field.name: (argument_of(field), field.default)
    for field in fields(Request)
    if field.name != "prompt" and argument_of(field).kind.written is not None
}


def _settings_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that options set; a single value of a list option becomes the value itself.

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
    described, default = _OPTIONS[name]
    flags = [*(_flag(short) for short in described.short), _flag(name)]
    if described.kind.written is bool:
        flags = [f"{flags[-1]}/--no-{flags[-1][2:]}"]
    option = typer.Option(
        *flags,
        help=_help(described.about) + _default(default),
        metavar=described.kind.metavar,
        rich_help_panel=described.group,
        show_default=False,
    )
    return Annotated[_written(described.kind) | None, option]


def _written(kind: Kind) -> Any:
    return list[kind.written] if kind.many else kind.written  # type: ignore[name-defined]


def _help(about: str) -> str:
    """Return the first sentence; the rest is for those who write Python."""
    sentence = about.partition(". ")[0].removesuffix(".") + "."
    plain = sentence.replace("``", "")
    return plain if sentence.startswith("``") else plain[0].upper() + plain[1:]


def _default(default: Any) -> str:
    return "" if default is None else f" [{','.join(map(str, default)) if isinstance(default, tuple) else default}]"


with_request_options = with_options("settings", {name: (_annotation(name), None) for name in _OPTIONS}, _settings_from)
"""Give a command that has a parameter ``settings``, of arguments of a request, an option for each that can be written
as text.

Arguments that are not set are not in ``settings``.
"""
