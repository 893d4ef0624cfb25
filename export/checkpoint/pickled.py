"""The tensors of ``.ckpt`` and ``.bin`` files, none of them read and nothing of the pickle run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...engines.errors import CheckpointError
from ...engines.files.pickle_data import Instance
from ...engines.files.torch_file import StoredTensor, mapping_in, read_torch_file
from .tensor import DTYPES, TensorSource

__all__ = ["read_pickled"]

_NESTED = 4  # state dicts inside state dicts; a pickle can even contain itself


def read_pickled(file: Path) -> tuple[dict[str, TensorSource], dict[str, object]]:
    """Return the tensors of a file by name, none of them read, and the numbers beside them (``global_step``).

    Where there is a ``state_dict``, as Lightning writes it, the tensors are those inside it. Objects of other classes
    (callbacks, optimisers, configs) are left aside.

    Raises:
        CheckpointError: the file is of another kind or damaged, its pickle would run code, or it holds no state dict.

    """
    read = read_torch_file(file)
    content = mapping_in(read)
    if content is None:
        what = read.kind if isinstance(read, Instance) else type(read).__name__
        raise CheckpointError(f"{file} holds a {what}, not a state dict")
    facts: dict[str, object] = {}
    for _ in range(_NESTED):
        facts |= {str(name): value for name, value in content.items() if isinstance(value, (int, float, str))}
        inner = mapping_in(content.get("state_dict"))
        if inner is None:
            break
        content = inner
    tensors = {name: _source(file, name, tensor) for name, tensor in _tensors(file, content)}
    if not tensors:
        names = ", ".join(str(name) for name in list(content)[:6]) or "nothing"
        hint = (
            "it is a textual inversion: give it to `sdengine run` with --textual-inversion"
            if "string_to_param" in content
            else "save the state dict alone"
        )
        raise CheckpointError(f"{file} holds no tensors by name, only {names}: {hint}")
    return tensors, facts


def _tensors(file: Path, content: Mapping[Any, Any]) -> Iterator[tuple[str, StoredTensor]]:
    for name, value in content.items():
        if isinstance(value, StoredTensor):
            yield str(name), value
        elif isinstance(value, Instance) and str(value.kind).startswith("torch._utils._rebuild_"):
            kind = str(value.kind).removeprefix("torch._utils._rebuild_")
            raise CheckpointError(f"{str(name)!r} of {file} is a {kind}; only dense tensors can be read")


def _source(file: Path, name: str, tensor: StoredTensor) -> TensorSource:
    if tensor.dtype not in DTYPES:
        raise CheckpointError(f"{name!r} of {file} is of type {tensor.dtype}; known are {', '.join(DTYPES)}")
    return TensorSource(
        file=file,
        name=name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        offset=tensor.offset,
        nbytes=tensor.nbytes,
        strides=tensor.strides,
    )
