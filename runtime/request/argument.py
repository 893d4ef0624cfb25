"""The declaration of an argument of a request: its meaning, the values that it takes, how it is written as text.

:class:`~.request.Request` declares each of its fields with an :class:`Argument`. The options of the command line and
the fields of the server are made from these declarations.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError
from ...engines.scalars import finite_number, plain_numbers, shortened, whole_number
from ..denoise.callback import checked_callback
from .arrays import finite_array, joined_array

__all__ = [
    "ANYTHING",
    "BY_CONTROLNET",
    "CALLBACK",
    "FLAG",
    "IMAGE",
    "IMAGES",
    "LORA_SCALE",
    "MIXED",
    "NUMBER",
    "PAIR",
    "PIXELS_MOST",
    "SCHEDULER",
    "SEEDS",
    "SERIES",
    "SERIES_MOST",
    "SHARE",
    "TEXT",
    "Argument",
    "Kind",
    "argument",
    "argument_of",
    "array",
    "arrays",
    "choice",
    "whole",
]

PIXELS_MOST = 2**20
"""Most pixels of a height, a width or a margin."""
SERIES_MOST = 10_000
"""Most numbers in a list: ten times the usual number of training timesteps."""


@dataclass(frozen=True)
class Kind:
    """The type of an argument's values.

    Attributes:
        check: called with the argument's name and its value, which is not None; returns the value as plain Python or
            numpy, and raises UsageError if it is not of this kind.
        written: the type of a value on a command line: ``int``, ``float``, ``bool``, ``str`` or ``Path``; None if it
            cannot be written there.
        many: whether the value may be a list of several.
        parse: turns a value of the type ``written`` into one of this kind; None if they are the same.
        metavar: the placeholder of a value in the command's help; None is that of ``written``.
        least: the smallest value; None is no bound.
        most: the largest value; None is no bound.
        choices: all possible values; empty if they cannot be listed.

    """

    check: Callable[[str, Any], Any]
    written: type | None = None
    many: bool = False
    parse: Callable[[str, Any], Any] | None = None
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """One argument.

    Attributes:
        about: its meaning, in one or more sentences.
        kind: the values that it takes.
        group: the heading under which the command's help lists it.
        short: shorter names for the command line.

    """

    about: str
    kind: Kind
    group: str
    short: tuple[str, ...] = ()


def argument(default: Any, about: str, kind: Kind, *, group: str, short: tuple[str, ...] = ()) -> Any:
    """Declare a field of a request; see :class:`Argument`."""
    return field(default=default, metadata={"argument": Argument(about, kind, group, short)})


def argument_of(declared: "Field[Any]") -> Argument:
    """Return a field's declaration."""
    argument: Argument = declared.metadata["argument"]
    return argument


def whole(least: int, most: int) -> Kind:
    """Whole numbers from ``least`` to ``most``."""
    return Kind(
        lambda name, value: whole_number(name, value, least=least, most=most), written=int, least=least, most=most
    )


def array(*axes: int) -> Kind:
    """Arrays of finite real numbers, as float32; ``axes`` are the numbers of axes that they may have."""
    return Kind(lambda name, value: finite_array(name, value, ndim=axes))


def arrays(*axes: int) -> Kind:
    """As :func:`array`, and lists of them, which are joined along the first axis."""
    return Kind(lambda name, value: joined_array(name, value, ndim=axes))


def choice(*values: str) -> Kind:
    """One of a few words."""
    return Kind(_text, written=str, choices=values)


def _share(name: str, value: Any) -> float:
    number = finite_number(name, value)
    if not 0.0 <= number <= 1.0:
        raise UsageError(f"{name}={value!r} is outside 0 to 1")
    return number


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}={shortened(value)} must be text")
    return value


def _flag(name: str, value: Any) -> bool:
    plain = plain_numbers(value)
    if not isinstance(plain, bool):
        raise UsageError(f"{name}={shortened(value)} must be True or False")
    return plain


def _series(name: str, value: Any) -> tuple[float, ...]:
    plain = plain_numbers(value)
    if not isinstance(plain, (list, tuple, range)):
        raise UsageError(f"{name}={shortened(plain)} must be a list of numbers")
    if len(plain) > SERIES_MOST:
        raise UsageError(f"{name} holds {len(plain)} numbers; {SERIES_MOST} are the most")
    return tuple(finite_number(name, item) for item in plain)


def _one_or_series(name: str, value: Any) -> float | tuple[float, ...]:
    plain = plain_numbers(value)
    return _series(name, plain) if isinstance(plain, (list, tuple, range)) else finite_number(name, plain)


def _seeds(name: str, value: Any) -> Any:
    """Return seeds, whole floats as integers; their range is checked where they are used."""
    plain = plain_numbers(value)
    if isinstance(plain, (list, tuple)):
        return [_seeds(name, item) for item in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _pair(name: str, value: Any) -> tuple[float, float]:
    plain = plain_numbers(value)
    if not isinstance(plain, (tuple, list)) or len(plain) != 2:
        raise UsageError(f"{name}={shortened(plain)} must be two numbers, vertical then horizontal")
    least = -PIXELS_MOST if "crops" in name else 0
    for item in plain:
        if not least <= finite_number(name, item) <= PIXELS_MOST:
            raise UsageError(f"{name}={shortened(plain)} is outside {least} to {PIXELS_MOST} pixels")
    return plain_numbers(plain[0]), plain_numbers(plain[1])


def _parsed_series(option: str, text: str) -> list[float]:
    try:
        return [float(item) for item in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: write numbers with commas between") from error


def _parsed_pair(option: str, text: str) -> tuple[int, int]:
    first, _, second = text.strip().removeprefix("(").removesuffix(")").replace("x", ",").partition(",")
    try:
        return int(first), int(second)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: write two whole numbers with a comma between, like 1024,768") from error


def _lora_scale(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not set(value) <= {"scale"}:
        raise UsageError(f"{name}={shortened(value)}: there is scale, the strength of LoRAs, and nothing else")
    return {key: finite_number(f"{name}[{key!r}]", number) for key, number in value.items()}


def _mixed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or not value:
        raise UsageError(f"{name}={shortened(value)} must be a list of texts and images")
    for item in value:
        if not (isinstance(item, (str, Path)) or hasattr(item, "shape") or hasattr(item, "resize")):
            raise UsageError(f"{name} holds {shortened(item)}: texts, PIL images, paths and arrays can be")
    return list(value)


def _parsed_mixed(_: str, written: str | list[str]) -> list[Any]:
    items = [written] if isinstance(written, str) else written
    return [Path(item) if Path(item).is_file() else item for item in items]


def _unchecked(_: str, value: Any) -> Any:
    return value


ANYTHING = Kind(_unchecked)
"""Python objects, which cannot be written on a command line; checked where they are used."""
TEXT = Kind(_unchecked, written=str)
"""Text or a list of texts; checked together with the other prompts."""
SCHEDULER = Kind(_unchecked, written=str)
"""A scheduler's name, class or object; checked where the schedule is made."""
IMAGE = Kind(_unchecked, written=Path)
IMAGES = Kind(_unchecked, written=Path, many=True)
MIXED = Kind(_mixed, written=str, many=True, parse=_parsed_mixed, metavar="TEXT|FILE")
"""A list of texts and images. In Python a text is always text; on a command line, the path of a file is an image."""
CALLBACK = Kind(lambda _, value: checked_callback(value))
FLAG = Kind(_flag, written=bool)
LORA_SCALE = Kind(_lora_scale)
NUMBER = Kind(finite_number, written=float)
SHARE = Kind(_share, written=float, least=0, most=1)
BY_CONTROLNET = Kind(_one_or_series, written=float, many=True)
"""A number, or one for each ControlNet."""
SEEDS = Kind(_seeds, written=int, many=True)
SERIES = Kind(_series, written=str, parse=_parsed_series, metavar="NUMBER,...")
PAIR = Kind(_pair, written=str, parse=_parsed_pair, metavar="VERTICAL,HORIZONTAL")
