"""Weights with LoRAs in them: always from the weights as they were exported, with the whole set at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LoraError
from ..files.stored_file import StoredFile
from .change import Change
from .file import Lora
from .strength import Strengths

__all__ = ["Merge", "merges", "rounded"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """One weight and everything that is added to it.

    Attributes:
        network: whose weight it is.
        name: the weight's.
        parts: the changes, with the file and the strength of each.

    """

    network: str
    name: str
    parts: tuple[tuple[StoredFile, Change, float], ...]

    def applied(self, weight: F32) -> F32:
        """Return the weight with all changes: each one's difference from this weight, summed in their order.

        Raises:
            CheckpointError: a file has changed.

        """
        file, change, strength = self.parts[0]
        with np.errstate(over="ignore", invalid="ignore"):  # see rounded
            total = change.difference(file, weight, strength)
            for file, change, strength in self.parts[1:]:
                total += change.difference(file, weight, strength)
            total += weight
        return total


def merges(loras: Sequence[tuple[Lora, Strengths]]) -> Iterator[Merge]:
    """Yield what is to be done, weight by weight; what has strength 0 is left out, as if it were not there.

    They are summed in the order of their contents, so that the order in which they are named makes no difference.
    """
    by_weight: dict[tuple[str, str], list[tuple[str, float, StoredFile, Change]]] = {}
    for lora, strengths in loras:
        for file, change in lora.changes:
            strength = strengths.of(change.network, change.name)
            if strength:
                by_weight.setdefault((change.network, change.name), []).append((lora.sha256, strength, file, change))
    for (network, name), unordered in by_weight.items():
        parts = tuple((f, change, s) for _, s, f, change in sorted(unordered, key=lambda part: part[:2]))
        yield Merge(network=network, name=name, parts=parts)


def rounded(
    merge: Merge, values: F32, convert: Callable[[F32], NDArray[np.generic]], dtype: str
) -> NDArray[np.generic]:
    """Round a merged weight to the type that it is stored in.

    Raises:
        LoraError: it is out of the type's range.

    """
    stored = convert(values)
    if not _finite(values if dtype == "BF16" else stored):  # bfloat16 is bits here, and has float32's range
        files = ", ".join(dict.fromkeys(file.path.name for file, _, _ in merge.parts))
        larger = ", or export with --precision fp32" if dtype == "F16" else ""
        raise LoraError(
            f"{merge.name} of the {merge.network} becomes too large for {dtype} with {files}: apply less of it{larger}"
        )
    return stored


def _finite(values: NDArray[np.generic]) -> bool:
    """Whether all are finite: they are if their sum is; where it is not, it may have overflowed itself."""
    with np.errstate(over="ignore", invalid="ignore"):
        plain = values.astype(np.float32, copy=False)
        return bool(np.isfinite(plain.sum(dtype=np.float32)) or np.isfinite(plain).all())
