"""A LoRA file, or any of its relatives, read against the networks that it is to change."""

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, UsageError
from ..files.stored_file import StoredFile, open_stored
from .change import Change, MisfitError, changes_of
from .family import checkpoint_in, family_of_file, family_of_networks
from .keys import REFUSED, Keys, sorted_keys
from .names import Networks, Target, component_of, spellings
from .peft_config import CONFIG, config_beside, configs_in, scaling_of
from .strength import COMPONENTS

__all__ = ["Lora", "components_of", "read_lora"]

F32 = NDArray[np.float32]
_IN_FOLDERS = (
    "adapter_model.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.bin",
)
_SHOWN = 3
_IS_CHECKPOINT = "{} is a checkpoint, not a LoRA: `sdengine export {} -o BUNDLE` exports it"


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What a file does to the networks, none of it read yet.

    Attributes:
        name: of the file, without its ending.
        path: as it was named.
        changes: each with the file that its tensors lie in.
        embeddings: of new words, pivotal tuning's: word -> part (``clip_l``, ...) -> float32 rows; the word is "" where
            the file does not say it.
        sha256: of everything that was read.
        notes: what a user should know.

    """

    name: str
    path: Path
    changes: tuple[tuple[StoredFile, Change], ...]
    embeddings: Mapping[str, Mapping[str, F32]]
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that it changes."""
        return tuple(dict.fromkeys(change.network for _, change in self.changes))

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it is made of: ``LoRA``, ``LoHa``, ..."""
        return tuple(dict.fromkeys(change.kind for _, change in self.changes))


def read_lora(path: str | Path, networks: Networks) -> Lora:
    """Read a file's names and shapes, and match them with the networks' own.

    Args:
        path: the file, ``.safetensors`` or of ``torch.save``; or a folder of PEFT or diffusers.
        networks: what it may change.

    Raises:
        UsageError: it is of another family or kind, or holds what cannot be applied: nothing of it is applied then.
        CheckpointError: it is missing or damaged.

    """
    named = Path(path)
    files = _files(named)
    known = spellings(networks)
    changes: list[tuple[StoredFile, Change]] = []
    embeddings: dict[str, dict[str, F32]] = {}
    for file in files:
        keys = sorted_keys(file.tensors)
        _refuse(file, keys, known, networks)
        _check_finite(file)
        for word, parts in keys.embeddings.items():
            embeddings.setdefault(word, {}).update({p: file.values(file.tensors[k]) for p, k in parts.items()})
        changes += [(file, change) for change in _changes(file, keys, known, networks)]
    if not changes:
        raise UsageError(f"{named} changes nothing: it holds no LoRA")
    _refuse_twice(named, [change for _, change in changes])
    configs = [c for f in files if (c := f.path.parent / CONFIG).is_file()]
    hashes = [*(file.held.sha256() for file in files), *(_sha256(config) for config in configs)]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Lora(
        name=named.stem if named.is_file() else named.name,
        path=named,
        changes=tuple(changes),
        embeddings=embeddings,
        sha256=digest,
        notes=tuple(_notes(named, changes)),
    )


def components_of(path: str | Path) -> tuple[str, ...]:
    """Return which components a file changes, by its names alone: ``unet``, ``text_encoder``, ``text_encoder_2``.

    Raises:
        UsageError: there is no such file, or it holds no LoRA.
        CheckpointError: it is damaged.

    """
    files = _files(Path(path))
    for file in files:
        _refuse_checkpoint(file)
    modules = [module for file in files for module in sorted_keys(file.tensors).modules]
    if not modules:
        raise UsageError(f"{path} holds no LoRA")
    components = {component_of(module) for module in modules}
    return tuple(component for component in COMPONENTS if component in components)


def _files(path: Path) -> list[StoredFile]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UsageError(f"there is no LoRA {path}") from error
    if stat.S_ISREG(mode):
        return [open_stored(path)]
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{path} is neither a file nor a folder")
    one = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
    if one is not None:
        return [open_stored(one)]
    parts = [(network, path / network) for network in ("unet", "text_encoder", "text_encoder_2")]
    several = [
        open_stored(folder / name).renamed(f"{network}.")
        for network, folder in parts
        for name in _IN_FOLDERS[:1]
        if (folder / name).is_file()
    ]
    if not several:
        if (path / "model_index.json").is_file():
            raise UsageError(_IS_CHECKPOINT.format(path, path.name))
        loras = sorted(file.name for file in path.glob("*.safetensors"))
        hint = f"name one of its files: {', '.join(loras[:_SHOWN])}" if loras else "name the file"
        raise UsageError(f"{path} holds neither {' nor '.join(_IN_FOLDERS[:2])}; {hint}")
    return several


def _refuse(file: StoredFile, keys: Keys, known: Mapping[str, Sequence[Target]], networks: Networks) -> None:
    """Refuse a file of which a part could not be applied; say what it is if that is known."""
    strange = [key for module, parts in keys.modules.items() if module not in known for key in parts.values()]
    strange += keys.unknown
    for name in strange:
        for pattern, what in REFUSED:
            if pattern.search(name):
                raise UsageError(f"{file.path} holds {what} ({name!r}), which cannot be applied")
    if keys.repeated:
        raise UsageError(
            f"{file.path} holds {keys.repeated[0]!r} beside another tensor for the same part of a layer: several "
            "adapters in one file, or one twice"
        )
    if not strange:
        return
    _refuse_checkpoint(file)
    some = ", ".join(repr(name) for name in strange[:_SHOWN])
    family, here = family_of_file(file), family_of_networks(networks)
    if family is not None and family != here:
        raise UsageError(f"{file.path} is for {family}, not for {here}: it has {some}")
    raise UsageError(
        f"{file.path}: {len(strange)} of its {len(file.tensors)} tensors belong to nothing in these networks ({here}): "
        f"{some}; nothing of it was applied"
    )


def _refuse_checkpoint(file: StoredFile) -> None:
    if checkpoint_in(file.tensors):
        raise UsageError(_IS_CHECKPOINT.format(file.path, file.path.name))


def _check_finite(file: StoredFile) -> None:
    """Look at all numbers now: later, some of the weights may be changed already."""
    for name, tensor in file.tensors.items():
        if not np.isfinite(file.values(tensor)).all():
            raise CheckpointError(
                f"{file.path}: {name!r} holds NaN or infinity: the file is damaged; download it again"
            )


def _changes(file: StoredFile, keys: Keys, known: Mapping[str, Sequence[Target]], networks: Networks) -> list[Change]:
    beside, inside = config_beside(file.path), configs_in(file.path, file.metadata)
    changes: list[Change] = []
    for name, parts in keys.modules.items():
        misfit: MisfitError | None = None
        for target in known[name]:
            config = beside or inside.get(target.network) or inside.get("")
            scaling = None if config is None else scaling_of(config, target.module)
            try:
                changes += changes_of(file, parts, target.network, target.module, networks[target.network], scaling)
                break
            except MisfitError as error:
                misfit = misfit or error
        else:
            assert misfit is not None
            family, here = family_of_file(file), family_of_networks(networks)
            if family is not None and family != here:
                raise UsageError(f"{file.path} is for {family}, not for {here}: {misfit}")
            raise UsageError(f"{misfit}: it is for another checkpoint than this one ({here})")
    return changes


def _notes(path: Path, changes: Sequence[tuple[StoredFile, Change]]) -> list[str]:
    """Say what a user may not expect."""
    notes = []
    unscaled = sum(change.scaled is False for _, change in changes)
    if unscaled and any(change.scaled for _, change in changes):
        notes.append(
            f"{path.name}: {unscaled} of its modules have no alpha: their factor is 1, that of the others alpha / rank"
        )
    for file, change in changes:
        down = file.tensors[change.keys["down"]] if change.name == "conv_in.weight" and "down" in change.keys else None
        if down is not None and down.shape[1] < change.shape[1]:
            notes.append(f"{path.name}: of the inpainting UNet's first convolution only the latents' channels change")
    return notes


def _refuse_twice(path: Path, changes: Sequence[Change]) -> None:
    seen: dict[tuple[str, str], Change] = {}
    for change in changes:
        other = seen.setdefault((change.network, change.name), change)
        if other is not change and {other.kind, change.kind} != {"LoRA", "full"}:
            keys = [next(iter(c.keys.values())) for c in (other, change)]
            raise UsageError(f"{path} changes {change.name} of the {change.network} twice: {keys[0]!r} and {keys[1]!r}")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
