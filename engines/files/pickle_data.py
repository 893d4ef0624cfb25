"""Reading a pickle as data: nothing that it names is imported, and nothing is called.

A pickle is a program for a stack machine (:mod:`pickletools`). Python's own machine imports the classes and functions
that the program names and calls them. This one builds a :class:`Global` for a name and an :class:`Instance` for a
call; the caller says which calls have a meaning as data (:class:`Meaning`).
"""

import _compat_pickle
import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Global", "Instance", "Meaning", "PickleError", "Stream", "read_pickle"]

_DATA_TYPES: dict[str, frozenset[str] | None] = {
    "_codecs": frozenset({"encode"}),
    "argparse": frozenset({"Namespace"}),
    "builtins": frozenset(
        {
            *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object"),
            *("range", "set", "slice", "str", "tuple", "type"),
        }
    ),
    "collections": None,
    "copyreg": frozenset({"_reconstructor", "__newobj__", "__newobj_ex__"}),
    "datetime": None,
    "decimal": None,
    "enum": None,
    "fractions": None,
    "functools": frozenset({"partial"}),
    "itertools": None,
    "logging": None,
    "pathlib": frozenset({"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"}),
    "re": frozenset({"_compile"}),
    "types": frozenset({"SimpleNamespace"}),
    "typing": None,
    "uuid": frozenset({"UUID"}),
}
"""The names of the standard library that are types of data; None allows a module's every name without a dot."""

_PUSHED = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_IGNORED = frozenset({"PROTO", "FRAME"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class PickleError(ValueError):
    """The pickle is damaged, or names something that runs code."""


@dataclass(frozen=True)
class Global:
    """A class or a function that the pickle names; it was not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """What a call in the pickle would have returned; nothing was called.

    Attributes:
        kind: what would have been called.
        args: with which arguments.
        entries: what was put into it, where it is a mapping.
        state: what it was to be restored from, or None.

    """

    kind: object
    args: tuple[Any, ...]
    entries: dict[Any, Any] = field(default_factory=dict)
    state: Any = None


class Stream(Protocol):
    """What a pickle is read from."""

    def read(self, size: int, /) -> bytes:
        """Return that many bytes, or what is left."""

    def readline(self) -> bytes:
        """Return the bytes up to the end of the line."""

    def tell(self) -> int:
        """Return the place of the next byte."""


Meaning = Callable[[Global, tuple[Any, ...]], Any]
"""Returns what a call stands for as data, or :data:`NotImplemented` where it is just an :class:`Instance`."""


def read_pickle(stream: Stream, *, persistent: Callable[[Any], Any], meaning: Meaning) -> Any:
    """Return the data that one pickle describes; the stream is left behind its end.

    Args:
        stream: the pickle, of any protocol.
        persistent: returns the object outside the pickle that goes by this id.
        meaning: returns what calls of known functions stand for.

    Raises:
        PickleError: it is damaged, or names a part of Python that is no type of data.

    """
    machine = _Machine(persistent, meaning)
    try:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]  # it needs no more of a file
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PickleError(f"it is a damaged pickle ({error})") from error
    raise PickleError("it is a pickle without an end")


class _Machine:
    def __init__(self, persistent: Callable[[Any], Any], meaning: Meaning) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent
        self.meaning = meaning

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("it is a damaged pickle (its stack ran out)")
        return value

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def run(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(values[::-1]))
        elif name not in _IGNORED:
            operation = getattr(self, f"_{name.lower()}", None)
            if operation is None:
                raise PickleError(f"it is a pickle with the instruction {name}, which no file of tensors has")
            operation(argument)

    # The stack and the memo.

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    # Containers.

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(self.pop_to_mark()))

    def _dict(self, _: Any) -> None:
        values = self.pop_to_mark()
        self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))

    def _append(self, _: Any) -> None:
        value = self.pop()
        self._add([value])

    def _appends(self, _: Any) -> None:
        self._add(self.pop_to_mark())

    def _add(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
        elif not isinstance(self.stack[-1], Instance):
            raise PickleError("it is a damaged pickle (it appends to what is no list)")

    def _additems(self, _: Any) -> None:
        values = self.pop_to_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(values)

    def _setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._enter([key, value])

    def _setitems(self, _: Any) -> None:
        self._enter(self.pop_to_mark())

    def _enter(self, values: list[Any]) -> None:
        target = self.stack[-1]
        mapping = target.entries if isinstance(target, Instance) else target
        if not isinstance(mapping, dict):
            raise PickleError("it is a damaged pickle (it sets items of what is no mapping)")
        mapping.update(zip(values[::2], values[1::2], strict=True))

    # Names and calls: noted down, never followed.

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("it is a damaged pickle (a name that is no text)")
        self.stack.append(_named(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, kind = self.pop(), self.pop()
        self._call(kind, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        self.pop()
        self._reduce(None)

    def _obj(self, _: Any) -> None:
        kind, *arguments = self.pop_to_mark()
        self._call(kind, tuple(arguments))

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._call(_named(module, name), tuple(self.pop_to_mark()))

    def _call(self, kind: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise PickleError("it is a damaged pickle (a call without a tuple of arguments)")
        value = self.meaning(kind, arguments) if isinstance(kind, Global) else NotImplemented
        self.stack.append(Instance(kind, arguments) if value is NotImplemented else value)

    def _build(self, _: Any) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Instance):
            self.stack[-1].state = state

    def _persid(self, argument: str) -> None:
        self.stack.append(self.persistent(argument))

    def _binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.pop()))


def _named(module: str, name: str) -> Global:
    """Note a name down, unless it is a part of Python that no data needs: then it would run code."""
    # Protocols 0 to 2 write the names of Python 2, as pickle itself knows them.
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        allowed = _DATA_TYPES.get(top, frozenset())
        if "." in name or (allowed is not None and name not in allowed):
            raise PickleError(f"its pickle calls {module}.{name}, which could run code; nothing of it was run")
    return Global(module, name)
