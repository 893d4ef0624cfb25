"""LoRAs merged into a checkpoint as it is exported: weight by weight, while it is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..engines.bundle.manifest import MergedLora
from ..engines.lora import LoraSource, Merge, merges, read_loras, rounded
from .checkpoint import DTYPES, Checkpoint, TensorSource

__all__ = ["with_loras"]


@dataclass(frozen=True, kw_only=True)
class MergedTensor(TensorSource):
    """A tensor of a checkpoint with LoRAs in it.

    Attributes:
        merge: what is added.

    """

    merge: Merge

    @property
    def verbatim(self) -> bool:
        """No file holds it."""
        return False

    def read(self) -> np.ndarray:
        """Read the tensor and what is added to it, and round the sum to the tensor's type."""
        dtype = DTYPES[self.dtype]
        values = self.merge.applied(super().read().astype(np.float32))
        return rounded(self.merge, values, lambda v: v.astype(dtype), self.dtype)


def with_loras(checkpoint: Checkpoint, sources: Sequence[LoraSource]) -> tuple[Checkpoint, list[MergedLora]]:
    """Return a checkpoint whose weights have LoRAs in them, and a manifest entry for each.

    Raises:
        UsageError: a LoRA is for another family, or holds what cannot be applied.
        CheckpointError: a file is damaged.

    """
    networks = {
        name: {key: tensor.shape for key, tensor in part.tensors.items()}
        for name, part in checkpoint.components.items()
        if name == "unet" or name.startswith("text_encoder")
    }
    read = read_loras(sources, networks)
    components = dict(checkpoint.components)
    changed: dict[str, dict[str, TensorSource]] = {}
    for merge in merges([(lora, strengths) for lora, _, strengths in read]):
        tensor = components[merge.network].tensors[merge.name]
        own = {name: getattr(tensor, name) for name in TensorSource.__dataclass_fields__}
        changed.setdefault(merge.network, {})[merge.name] = MergedTensor(**own, merge=merge)
    for name, tensors in changed.items():
        components[name] = replace(components[name], tensors=components[name].tensors | tensors, file=None)
    records = [
        MergedLora(name=lora.name, sha256=lora.sha256, strength=s if isinstance(s, float) else dict(s))
        for lora, s, _ in read
    ]
    notes = tuple(
        f"{lora.path.name} also holds embeddings of new words ({', '.join(sorted(filter(None, lora.embeddings)))}), "
        f"which are not part of a bundle: `sdengine run --lora {lora.path.name}:0` reads them"
        for lora, _, _ in read
        if lora.embeddings
    )
    return replace(
        checkpoint,
        components=components,
        notes=(*checkpoint.notes, *(n for lora, _, _ in read for n in lora.notes), *notes),
    ), records
