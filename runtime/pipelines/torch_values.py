"""Tensors for those who brought torch: it is never imported here, only used if the caller's process has it."""

import sys
from typing import Any

from ...engines.errors import UsageError

__all__ = ["PRECISIONS", "default_generator", "device_value", "dtype_value", "precision_of", "tensor_of", "torch_here"]

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""torch's types, as precisions of a bundle."""


def torch_here() -> Any:
    """Return torch if this process has imported it, else None."""
    return sys.modules.get("torch")


def tensor_of(array: Any) -> Any:
    """Return an array as a tensor on the CPU, where torch is here; else the array."""
    torch = torch_here()
    return array if torch is None else torch.from_numpy(array)


def precision_of(dtype: Any) -> str:
    """Return the precision that a torch type, or its name, stands for.

    Raises:
        UsageError: no engine computes in it.

    """
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISIONS:
        raise UsageError(f"torch_dtype={dtype}: engines compute in {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def dtype_value(precision: str) -> Any:
    """Return torch's type of a precision, where torch is here; else its name."""
    name = next(name for name, own in PRECISIONS.items() if own == precision)
    torch = torch_here()
    return name if torch is None else getattr(torch, name)


def device_value(device: str) -> Any:
    """Return torch's device of that name, where torch is here; else the name."""
    torch = torch_here()
    return device if torch is None else torch.device(device)


def default_generator(device: str) -> Any:
    """Return the generator that ``torch.manual_seed`` seeds, which diffusers draws from; None where there is none."""
    torch = torch_here()
    if torch is None:
        return None
    if not device.startswith("cuda"):
        return torch.default_generator
    if not torch.cuda.is_available():
        return None
    torch.cuda.init()
    index = int(device.partition(":")[2] or torch.cuda.current_device())
    return torch.cuda.default_generators[index]
