"""The weights files of one component: which to take, and what is in them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engines.errors import CheckpointError
from ...engines.files.file_kind import what_it_is
from .json_file import read_json
from .pickled import read_pickled
from .safetensors_header import read_header
from .tensor import TensorSource

__all__ = [
    "PICKLED_SUFFIXES",
    "WEIGHT_SUFFIXES",
    "PickedWeights",
    "pick_weights",
    "read_picked",
    "read_weights",
    "variants_of_parts",
]

PICKLED_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")
WEIGHT_SUFFIXES = (".safetensors", *PICKLED_SUFFIXES)

# What save_pretrained of diffusers and transformers calls them: STEM[.VARIANT].safetensors, and for shards
# STEM.safetensors.index[.VARIANT].json over STEM[.VARIANT]-00001-of-00002.safetensors.
_STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
_WHOLE = re.compile(rf"{_STEM}(?:\.(?P<variant>[\w-]+))?\.(?P<kind>safetensors|bin)")
_INDEX = re.compile(rf"{_STEM}(?:\.(?P<before>\w+))?\.(?P<kind>safetensors|bin)\.index(?:\.(?P<variant>[\w-]+))?\.json")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True, kw_only=True)
class PickedWeights:
    """The file to read: the weights themselves, or the index of their shards."""

    name: str
    variant: str | None
    index: bool
    pickled: bool


def pick_weights(names: Collection[str], variant: str | None, where: str) -> PickedWeights:
    """Choose among the files of a component's folder.

    Safetensors before pickles, one file before shards. Without ``variant`` the plain files are taken, and where
    there are none the fp16 ones, or the only ones.

    Args:
        names: the file names in the folder.
        variant: ``fp16`` and the like, or None.
        where: the folder, for messages.

    Raises:
        CheckpointError: there are no weights, or none of that variant.

    """
    available = _weights(names)
    variants = sorted({weights.variant or "" for weights in available})
    if not available:
        seen = ", ".join(sorted(names)[:5]) or "nothing"
        raise CheckpointError(f"{where} holds no weights (.safetensors or .bin); there is {seen}")
    if variant is None:
        chosen = next(v for v in ("", "fp16", *variants) if v in variants)
    elif variant in variants:
        chosen = variant
    else:
        known = ", ".join(v or "the plain one (no variant)" for v in variants)
        raise CheckpointError(f"{where} has no {variant!r} variant of its weights; it has {known}")
    matching = [weights for weights in available if (weights.variant or "") == chosen]
    return min(matching, key=lambda weights: (weights.pickled, weights.index, weights.name))


def variants_of_parts(files: Mapping[str, Collection[str]], variant: str | None, where: str) -> dict[str, str | None]:
    """Return the variant that each part of a pipeline takes, as diffusers does: the plain weights where it has none.

    Args:
        files: the file names in the folder of each part.
        variant: ``fp16`` and the like, or None.
        where: the pipeline, for messages.

    Raises:
        CheckpointError: no part has that variant.

    """
    have = {part: {weights.variant or "" for weights in _weights(names)} for part, names in files.items()}
    chosen = {part: variant if variant in variants else None for part, variants in have.items()}
    if variant is not None and variant not in chosen.values():
        known = sorted({name or "the plain one (no variant)" for variants in have.values() for name in variants})
        raise CheckpointError(f"{where} has no {variant!r} variant of its weights; it has {', '.join(known) or 'none'}")
    return chosen


def _weights(names: Collection[str]) -> list[PickedWeights]:
    weights_files = []
    for name in names:
        whole, index = _WHOLE.fullmatch(name), _INDEX.fullmatch(name)
        if index:
            variant, kind = index["variant"] or index["before"], index["kind"]
        elif whole and not _SHARD.search(name.removesuffix("." + whole["kind"])):
            variant, kind = whole["variant"], whole["kind"]
        else:
            continue
        weights_files.append(PickedWeights(name=name, variant=variant, index=index is not None, pickled=kind == "bin"))
    return weights_files


def read_picked(folder: Path, picked: PickedWeights) -> dict[str, TensorSource]:
    """Return the tensors of the chosen file, or of all shards of the chosen index.

    Raises:
        CheckpointError: a file is missing or damaged, or the index and the shards disagree.

    """
    if not picked.index:
        return read_weights(folder / picked.name)[0]
    index = folder / picked.name
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map")
    tensors: dict[str, TensorSource] = {}
    for shard in sorted({str(place) for place in places.values()}):
        if Path(shard).name != shard or shard.startswith("."):
            raise CheckpointError(f"{index} names {shard!r}, which is not a file beside it")
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard} is missing, though {index.name} names it")
        tensors |= read_weights(folder / shard)[0]
    for name, shard in places.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(f"{folder / str(shard)} does not hold {name!r}, though {index.name} says so")
    return {name: tensor for name, tensor in tensors.items() if name in places}


def read_weights(file: Path) -> tuple[dict[str, TensorSource], Mapping[str, object]]:
    """Return the tensors of one file by name, none of them read, and the facts noted beside them.

    Raises:
        CheckpointError: the file is missing, of another kind, damaged, or not safe to unpickle.

    """
    if not file.is_file():
        raise CheckpointError(f"there is no file {file}")
    if file.suffix == ".safetensors":
        return read_header(file)
    if file.suffix in PICKLED_SUFFIXES:
        return read_pickled(file)
    raise CheckpointError(f"{file} is none of {', '.join(WEIGHT_SUFFIXES)}: {what_it_is(file)}")
