"""One weight's change: which tensors of the file make it, checked against the weight, and what it comes to."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..files.stored_file import StoredFile
from .formulas import decomposed, decomposed_as_peft, kronecker, low_rank, magnitude_by_input

__all__ = ["Change", "MisfitError", "Scaling", "changes_of"]

F32 = NDArray[np.float32]
Shape = tuple[int, ...]
Scaling = Callable[[int], float]
"""From a rank to the factor that a configuration of PEFT asks for."""


class MisfitError(UsageError):
    """A change is of another shape than the weight: the file is for another network."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a file does to one weight.

    Attributes:
        network: whose weight it is.
        name: the weight's.
        shape: the weight's.
        kind: one of :data:`_PARTS`.
        keys: part -> the file's key.
        factor: what the product is multiplied with beside the strength: alpha over rank.
        scaled: whether the file gives an alpha for it; None where it has no rank.
        by_input: of (IA)³: whether its numbers are one for each input channel, and not for each output channel.

    """

    network: str
    name: str
    shape: Shape
    kind: str
    keys: Mapping[str, str]
    factor: float = 1.0
    scaled: bool | None = None
    by_input: bool = False

    def difference(self, file: StoredFile, weight: F32, strength: float) -> F32:
        """Return what is added to the weight.

        Args:
            file: the file.
            weight: float32, as it was exported.
            strength: any number but 0, which would be no change at all.

        Raises:
            CheckpointError: the file has changed.

        """
        parts = {part: file.values(file.tensors[key]) for part, key in self.keys.items()}
        m = np.float32(strength * self.factor)
        if self.kind == "full":
            return m * next(iter(parts.values())).reshape(self.shape)
        if self.kind == "IA3":
            return m * weight * _along(parts["weight"], weight, by_input=self.by_input)
        if self.kind == "IA3 of PEFT":
            return m * weight * (_along(parts["ia3_l"], weight, by_input=self.by_input) - 1)
        product = _fitted(_PRODUCTS[self.kind](parts), self.shape)
        if "magnitude" in parts:
            return decomposed_as_peft(weight, m * product, parts["magnitude"])
        if "dora_scale" in parts:
            return decomposed(weight, np.float32(self.factor) * product, parts["dora_scale"], strength)
        product *= m
        return product


def _lora(parts: Mapping[str, F32]) -> F32:
    up, down = parts["up"], parts["down"]
    if "mid" in parts:
        return low_rank(up.reshape(len(up), -1).T, down.reshape(len(down), -1), parts["mid"])
    return low_rank(up, down)


def _embedding(parts: Mapping[str, F32]) -> F32:
    return low_rank(parts["embedding_up"], parts["embedding_down"]).T


def _loha(parts: Mapping[str, F32]) -> F32:
    first, second = (low_rank(parts[f"hada_w{i}_a"], parts[f"hada_w{i}_b"], parts.get(f"hada_t{i}")) for i in (1, 2))
    product: F32 = first * second
    return product


def _lokr(parts: Mapping[str, F32]) -> F32:
    left, right = (
        parts[f"lokr_w{i}"]
        if f"lokr_w{i}" in parts
        else low_rank(parts[f"lokr_w{i}_a"], parts[f"lokr_w{i}_b"], parts.get(f"lokr_t{i}"))
        for i in (1, 2)
    )
    return kronecker(left, right)


_PRODUCTS: dict[str, Callable[[Mapping[str, F32]], F32]] = {
    "LoRA": _lora,
    "LoRA of an embedding": _embedding,
    "LoHa": _loha,
    "LoKr": _lokr,
}
_PARTS: dict[str, tuple[str, ...]] = {
    "LoRA": ("down", "up", "mid"),
    "LoRA of an embedding": ("embedding_down", "embedding_up"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2"),
    "IA3": ("weight", "on_input"),
    "IA3 of PEFT": ("ia3_l",),
}
"""Kinds whose parts belong together, and all of those; the others are ``full``, one tensor each."""
_FULL = {"diff": "weight", "w_norm": "weight", "diff_b": "bias", "b_norm": "bias"}
_BESIDE = ("dora_scale", "magnitude")
_NUMBERS = ("alpha", "scale")


def changes_of(
    file: StoredFile,
    keys: Mapping[str, str],
    network: str,
    module: str,
    shapes: Mapping[str, Shape],
    scaling: Scaling | None,
) -> list[Change]:
    """Make the changes of one module.

    Args:
        file: the file.
        keys: part -> key, of this module.
        network: whose module it is.
        module: its name in the network.
        shapes: of the network's weights.
        scaling: of PEFT's configuration, for modules without an alpha.

    Raises:
        UsageError: a part is missing, or no change of this module.
        MisfitError: the parts do not fit each other or the module.

    """
    left = dict(keys)
    changes: list[Change] = []

    def add(kind: str, suffix: str, own: Mapping[str, str], factor: float = 1.0, scaled: bool | None = None) -> None:
        name = f"{module}.{suffix}"
        where = f"{file.path}: {next(iter(own.values()))!r}"
        if name not in shapes:
            raise UsageError(f"{where} changes the {suffix} of {module}, which has none here")
        parts = {part: file.tensors[key].shape for part, key in own.items()}
        _check(where, kind, parts, module, shapes[name])
        changes.append(
            Change(
                network=network,
                name=name,
                shape=shapes[name],
                kind=kind,
                keys=own,
                factor=factor,
                scaled=scaled,
                by_input=kind.startswith("IA3") and _scales_inputs(where, file, own, parts, module, shapes[name]),
            )
        )

    for key in keys.values():
        if 0 in file.tensors[key].shape:
            raise UsageError(f"{file.path}: {key!r} is empty: {list(file.tensors[key].shape)}")
    for kind, names in _PARTS.items():
        own = {name: left.pop(name) for name in names if name in left}
        if not own:
            continue
        if kind in _PRODUCTS:
            numbers = {name: left.pop(name) for name in _NUMBERS if name in left}
            beside = {name: left.pop(name) for name in _BESIDE if name in left}
            factor = _factor(file, kind, own, numbers, scaling)
            add(kind, "weight", own | beside, factor, scaled=bool(numbers) or scaling is not None)
            if "up_bias" in left:
                add("full", "bias", {"up_bias": left.pop("up_bias")}, factor)
        else:
            add(kind, "weight", own)
    for part, suffix in _FULL.items():
        if part in left:
            add("full", suffix, {part: left.pop(part)})
    if changes and set(left) <= set(_NUMBERS):
        return changes  # ComfyUI and others write an alpha beside differences that have no rank
    if left:
        raise UsageError(f"{file.path}: {next(iter(left.values()))!r} is no change without the parts that go with it")
    return changes


def _factor(
    file: StoredFile, kind: str, own: Mapping[str, str], numbers: Mapping[str, str], scaling: Scaling | None
) -> float:
    """Return alpha / rank.

    ``scale`` stands for the quotient. Without either the factor is 1, as in kohya's scripts, where alpha is the rank
    then, and so is an alpha of 0. LyCORIS does not scale a LoKr whose two factors are whole, whatever alpha says.
    """
    if "scale" in numbers:
        return _number(file, numbers["scale"])
    rank = _rank(kind, {part: file.tensors[key].shape for part, key in own.items()})
    if scaling is not None and "alpha" not in numbers:
        return scaling(rank or 0)
    if rank is None or "alpha" not in numbers:
        return 1.0
    return (_number(file, numbers["alpha"]) or rank) / rank


def _rank(kind: str, shapes: Mapping[str, Shape]) -> int | None:
    parts = {
        "LoRA": ("down",),
        "LoRA of an embedding": ("embedding_down",),
        "LoHa": ("hada_w1_b",),
        "LoKr": ("lokr_w1_b", "lokr_w2_b"),
    }[kind]
    return next((shapes[part][0] for part in parts if shapes.get(part)), None)


def _number(file: StoredFile, key: str) -> float:
    values = file.values(file.tensors[key])
    if values.size != 1:
        raise UsageError(f"{file.path}: {key!r} should be one number, not {list(values.shape)}")
    return float(values.reshape(()))


def _check(where: str, kind: str, shapes: Mapping[str, Shape], module: str, weight: Shape) -> None:
    try:
        made = _made(kind, shapes, weight)
    except KeyError as error:
        raise UsageError(f"{where}: {error.args[0]} is missing beside it") from error
    except (IndexError, ValueError) as error:
        if kind.startswith("IA3"):
            raise MisfitError(
                f"{where}: its {kind} has the shapes {dict(shapes)}, {module} has {list(weight)}"
            ) from error
        raise UsageError(f"{where}: the parts of its {kind} do not fit each other: {dict(shapes)}") from error
    rows, columns = made
    padded = module == "conv_in" and columns < math.prod(weight[1:]) and columns % math.prod(weight[2:]) == 0
    if rows != weight[0] or (columns != math.prod(weight[1:]) and not padded):
        raise MisfitError(f"{where} changes a weight of {rows} by {columns}, {module} has {list(weight)}")
    for part in _BESIDE:
        by_input = part == "dora_scale" and part in shapes and magnitude_by_input(shapes[part])
        if part in shapes and math.prod(shapes[part]) != weight[1 if by_input else 0]:
            raise MisfitError(f"{where}: its {part} has the shape {list(shapes[part])}, {module} has {list(weight)}")


def _scales_inputs(
    where: str, file: StoredFile, keys: Mapping[str, str], parts: Mapping[str, Shape], module: str, weight: Shape
) -> bool:
    """Whether the numbers of an (IA)³ are one for each input channel.

    LyCORIS says so in ``on_input``. PEFT does not: the shape shows it for a matrix, the count for a convolution.
    """
    if "on_input" in parts:
        by_input, shape = bool(_number(file, keys["on_input"])), parts["weight"]
    else:
        shape = parts["ia3_l"]
        if len(shape) != 2 and weight[0] == weight[1]:
            raise UsageError(f"{where}: it is not clear whether this scales the inputs or the outputs of {module}")
        by_input = shape[0] == 1 if len(shape) == 2 else math.prod(shape) != weight[0]
    if math.prod(shape) != weight[1 if by_input else 0]:
        side = "inputs" if by_input else "outputs"
        raise MisfitError(f"{where} scales {math.prod(shape)} {side}, {module} has {list(weight)}")
    return by_input


def _made(kind: str, shapes: Mapping[str, Shape], weight: Shape) -> tuple[int, int]:
    """Return rows and columns of what the parts make; KeyError: one is missing, ValueError: they do not fit."""
    if kind == "full":
        [shape] = shapes.values()
        return shape[0], math.prod(shape[1:])
    if kind.startswith("IA3"):
        part = "weight" if kind == "IA3" else "ia3_l"
        _ = shapes["on_input"] if kind == "IA3" else None
        _same(math.prod(shapes[part]) in weight[:2], True)
        return weight[0], math.prod(weight[1:])
    if kind == "LoRA":
        up, down, mid = shapes["up"], shapes["down"], shapes.get("mid")
        _same(math.prod(up[1:]), down[0])
        if mid is None:
            return up[0], math.prod(down[1:])
        _same(mid[:2], (down[0], down[0]))
        return up[0], math.prod(down[1:]) * math.prod(mid[2:])
    if kind == "LoRA of an embedding":
        up, down = shapes["embedding_up"], shapes["embedding_down"]
        _same(up[1], down[0])
        return down[1], up[0]
    sides = [_side(shapes, f"{'hada' if kind == 'LoHa' else 'lokr'}_", i) for i in (1, 2)]
    if kind == "LoHa":
        _same(sides[0], sides[1])
        return sides[0]
    return sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]


def _side(shapes: Mapping[str, Shape], prefix: str, i: int) -> tuple[int, int]:
    """Rows and columns of one factor: whole, a product, or a product with a core."""
    whole = shapes.get(f"{prefix}w{i}")
    if whole is not None:
        return whole[0], math.prod(whole[1:])
    a, b, core = shapes[f"{prefix}w{i}_a"], shapes[f"{prefix}w{i}_b"], shapes.get(f"{prefix}t{i}")
    if core is None:
        _same(math.prod(a[1:]), b[0])
        return a[0], math.prod(b[1:])
    _same(core[:2], (a[0], b[0]))
    return a[1], b[1] * math.prod(core[2:])


def _same(one: object, other: object) -> None:
    if one != other:
        raise ValueError


def _fitted(product: F32, shape: Shape) -> F32:
    """Bring a product to the weight's shape; an inpainting UNet takes more channels, behind those of other UNets."""
    missing = math.prod(shape) - product.size
    if not missing:
        return product.reshape(shape)
    fitted = np.zeros(shape, np.float32)
    columns = product.size // shape[0] // math.prod(shape[2:])
    fitted[:, :columns] = product.reshape(shape[0], columns, *shape[2:])
    return fitted


def _along(factors: F32, weight: F32, *, by_input: bool) -> F32:
    """Shape one number for each input, or output, channel so that it multiplies a weight."""
    shape = [1] * weight.ndim
    shape[1 if by_input else 0] = -1
    return factors.reshape(shape)
