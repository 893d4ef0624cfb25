"""Reads what running an ONNX file needs: operators, their precision, and where the weights are.

The lean runtime has no ``onnx``. This reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding)
and the few fields of ``onnx.proto`` that are named here; everything else is skipped.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError

__all__ = ["GraphFile", "Initialiser", "Operator", "operators_by_precision", "read_graph"]

_PRECISIONS = {1: "fp32", 10: "fp16", 16: "bf16"}
_CAST_TO_FLOAT = tuple(_PRECISIONS)
_GIVES_NO_FLOAT = {"Shape", "Size", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN", "ArgMax"}
_INLINE, _EXTERNAL = 0, 1


@dataclass(frozen=True, kw_only=True)
class Initialiser:
    """A weight or constant of a graph.

    Attributes:
        type: number of its element type in ONNX's ``TensorProto.DataType``.
        count: elements.
        offset: in the weights file beside the graph; None for one that is inside the graph.
        length: bytes.
        data: of one that is inside the graph; else empty.

    """

    type: int
    count: int
    offset: int | None
    length: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A node: its kind, the names of its inputs and outputs, and for a cast the element type it casts to."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    to: int | None


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """An ONNX file.

    Attributes:
        operators: in the order in which they run.
        initialisers: by name.
        inputs: element types of the inputs, by name.

    """

    operators: tuple[Operator, ...]
    initialisers: dict[str, Initialiser]
    inputs: dict[str, int]


def read_graph(file: Path) -> GraphFile:
    """Read a graph; the weights beside it are not touched.

    Raises:
        BundleError: it is no ONNX file.

    """
    try:
        [graph] = [value for field, value in _fields(memoryview(file.read_bytes())) if field == 7]
        operators, initialisers, inputs = [], {}, {}
        for field, value in _fields(_message(graph)):
            if field == 1:
                operators.append(_operator(_message(value)))
            elif field == 5:
                name, initialiser = _initialiser(_message(value))
                initialisers[name] = initialiser
            elif field == 11:
                name, element = _input(_message(value))
                inputs[name] = element
    except (ValueError, IndexError) as error:
        raise BundleError(f"{file} is no ONNX graph: {error}; export it again") from error
    return GraphFile(operators=tuple(operators), initialisers=initialisers, inputs=inputs)


def operators_by_precision(graph: GraphFile) -> dict[str, dict[str, int]]:
    """Count the operators of each precision by kind.

    An operator computes in the type of its first floating-point input; a cast counts for what it casts to. Those that
    work on shapes and indices are left out.
    """
    types = graph.inputs | {name: tensor.type for name, tensor in graph.initialisers.items()}
    counts: dict[str, Counter[str]] = {}
    for operator in graph.operators:
        element = operator.to
        if element is None and operator.kind not in _GIVES_NO_FLOAT:
            element = next((t for name in operator.inputs if (t := types.get(name)) in _PRECISIONS), None)
        if element in _PRECISIONS:
            assert element is not None
            types.update(dict.fromkeys(operator.outputs, element))
            counts.setdefault(_PRECISIONS[element], Counter())[operator.kind] += 1
    return {precision: dict(sorted(kinds.items())) for precision, kinds in sorted(counts.items())}


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: numbers as they are, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, at = _varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError(f"a field of wire type {wire} at byte {at} does not fit")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number at byte {at} is too long")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("there is a number in place of a message")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("there is a message in place of a number")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()


def _operator(data: memoryview) -> Operator:
    """``NodeProto``: input 1, output 2, op_type 4, attribute 5 (name 1, i 3)."""
    inputs, outputs, kind, to = [], [], "", None
    for field, value in _fields(data):
        if field == 1:
            inputs.append(_text(value))
        elif field == 2:
            outputs.append(_text(value))
        elif field == 4:
            kind = _text(value)
        elif field == 5:
            attribute = dict(_fields(_message(value)))
            if _text(attribute[1]) == "to":
                to = _number(attribute[3])
    return Operator(kind=kind, inputs=tuple(inputs), outputs=tuple(outputs), to=to)


def _initialiser(data: memoryview) -> tuple[str, Initialiser]:
    """``TensorProto``: dims 1, data_type 2, name 8, raw_data 9, external_data 13 (key 1, value 2), data_location 14."""
    name, element, count, raw, location = "", 0, 1, b"", _INLINE
    external: dict[str, str] = {}
    for field, value in _fields(data):
        if field == 1:
            count *= _product(value)
        elif field == 2:
            element = _number(value)
        elif field == 8:
            name = _text(value)
        elif field == 9:
            raw = bytes(_message(value))
        elif field == 13:
            entry = dict(_fields(_message(value)))
            external[_text(entry[1])] = _text(entry[2])
        elif field == 14:
            location = _number(value)
    if location == _EXTERNAL:
        offset, length = int(external.get("offset", "0")), int(external.get("length", "-1"))
        return name, Initialiser(type=element, count=count, offset=offset, length=length, data=b"")
    return name, Initialiser(type=element, count=count, offset=None, length=len(raw), data=raw)


def _product(value: int | memoryview) -> int:
    """Multiply the dimensions of a field, which is one number or several packed ones."""
    if isinstance(value, int):
        return value
    product, at = 1, 0
    while at < len(value):
        dim, at = _varint(value, at)
        product *= dim
    return product


def _input(data: memoryview) -> tuple[str, int]:
    """``ValueInfoProto``: name 1, type 2; ``TypeProto``: tensor_type 1; its elem_type 1."""
    fields = dict(_fields(data))
    tensor = dict(_fields(_message(dict(_fields(_message(fields[2])))[1])))
    return _text(fields[1]), _number(tensor[1])
