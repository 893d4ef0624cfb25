"""What a checkpoint is once it has been read: components, tokenizers, configs."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...engines.errors import CheckpointError
from .tensor import TensorSource

__all__ = ["Checkpoint", "CheckpointComponent"]

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class CheckpointComponent:
    """One network of a checkpoint.

    Attributes:
        name: ``unet``, ``vae``, ``text_encoder``, ``text_encoder_2``, ``controlnet`` or, of several,
            ``controlnet_2``, ...
        class_name: its class in diffusers or transformers.
        config: the contents of its ``config.json``, inferred where the checkpoint has none.
        tensors: its weights under the names of diffusers' and transformers' state dicts. Text encoders of both
            classes have ``text_model.`` in front, as in published files and in transformers before 5.6.
        file: the one ``.safetensors`` that holds exactly these tensors under exactly these names, or None. In the
            Hub's cache it is a symbolic link.

    """

    name: str
    class_name: str
    config: dict[str, object]
    tensors: dict[str, TensorSource]
    file: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its tensors are in."""
        return tuple(dict.fromkeys(tensor.file for tensor in self.tensors.values()))

    def check(self, expected: Mapping[str, Sequence[int]]) -> None:
        """Compare names and shapes with what the network needs.

        Args:
            expected: shape by name, from the network's state dict.

        Raises:
            CheckpointError: a tensor is missing (a similar name that is left over is offered), unknown or of another
                shape.

        """
        missing = [name for name in expected if name not in self.tensors]
        unknown = [name for name in self.tensors if name not in expected]
        faults = [f"{name!r} is missing{_renamed(name, unknown)}" for name in missing]
        if not missing:
            faults = [f"{name!r} belongs to no part of it" for name in unknown]
        for name, tensor in self.tensors.items():
            if name in expected and tensor.shape != tuple(expected[name]):
                faults.append(
                    f"{name!r} has the shape {list(tensor.shape)}, its config asks for {list(expected[name])}"
                )
        if faults:
            more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            where = ", ".join(str(file) for file in self.files) or "no file"
            raise CheckpointError(f"{self.name} ({where}): {'; '.join(faults[:_SHOWN])}{more}")


def _renamed(name: str, unknown: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, unknown, n=1, cutoff=0.8)
    return f" (the file has {close[0]!r}, which is no weight of it)" if close else ""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint, opened but not read.

    Attributes:
        source: what the user named.
        family: a name of :data:`~sdengine.engines.families.FAMILIES`.
        components: by name; see :class:`CheckpointComponent`. It may bring ControlNets of its own.
        tokenizers: ``tokenizer`` and ``tokenizer_2``, each a folder with ``tokenizer.json`` or ``vocab.json`` and
            ``merges.txt``.
        pad_tokens: what each tokenizer fills a prompt up with. It decides over what the folder says: SD 2 and SDXL's
            second encoder pad with ``!``, and a single file shares one folder between the two tokenizers.
        scheduler: the scheduler's config, ``_class_name`` included.
        model_index: the flags of the pipeline: ``force_zeros_for_empty_prompt``, ``requires_aesthetics_score``, ...
        settings: more files of a bundle, by name: the scheduler of a prior, how images are prepared.
        notes: decisions that a user should know: a variant that was chosen, an assumption, a part left out.

    """

    source: str
    family: str
    components: dict[str, CheckpointComponent]
    tokenizers: dict[str, Path]
    pad_tokens: dict[str, str]
    scheduler: dict[str, object]
    model_index: dict[str, object]
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def apart(self) -> tuple["Checkpoint", tuple[CheckpointComponent, ...]]:
        """Return the checkpoint without the ControlNets that it brings, and those."""
        own = {name: part for name, part in self.components.items() if name.startswith("controlnet")}
        rest = {name: part for name, part in self.components.items() if name not in own}
        return replace(self, components=rest), tuple(own.values())
