"""``manifest.json``: what a bundle holds, as plain data.

An unknown field is an error, so that a newer bundle is not half understood. The file ends with ``"checksum"``, the
SHA-256 of everything before it: one changed digit of a config would change the image. It finds damage only: who can
write the file can also write the checksum, or leave it out.
"""

import hashlib
import re
from typing import NamedTuple

import msgspec

from ..spec import ComponentSpec

__all__ = [
    "MANIFEST",
    "MANIFEST_LIMIT",
    "SCHEMA",
    "Component",
    "EngineFile",
    "FileRecord",
    "Graph",
    "Manifest",
    "MergedLora",
    "Network",
    "PreviewMap",
    "Verification",
    "WrittenManifest",
    "manifest_text",
    "written_manifest",
]

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 64 * 2**20
"""Largest manifest, in bytes."""
SCHEMA = 3
"""Version of this layout; another one is refused."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle."""

    sha256: str
    bytes: int


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network of the checkpoint: one config and one weights file, shared by its components and their engines.

    Attributes:
        class_name: its class in diffusers or transformers.
        config: the contents of its ``config.json``.
        weights: the ``.safetensors``, relative to the bundle.
        dtype: what the weights are stored in: ``float32``, ``float16``, ``bfloat16``, or ``mixed``.
        parameters: number of elements.

    """

    class_name: str
    config: dict[str, object]
    weights: str
    dtype: str
    parameters: int


class Graph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A component's ONNX model in one precision.

    Attributes:
        file: relative to the bundle.
        spec: inputs, outputs and axes.
        contrib: the same in operators that ONNX Runtime contributes itself, for its engine on CPUs; None where it
            would be no different.

    """

    file: str
    spec: ComponentSpec
    contrib: str | None = None


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network, or a part of one, as it is compiled.

    Attributes:
        kind: which part; see :func:`~sdengine.engines.nets.component_module.component_module`.
        network: name of the network whose weights it uses.
        graphs: by precision: ``fp32``, ``bf16`` or ``fp16``.

    """

    kind: str
    network: str
    graphs: dict[str, Graph]


class EngineFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that an engine built ahead of time, such as a plan.

    Attributes:
        engine: name of the engine.
        component: what it runs.
        file: relative to the bundle.
        precision: of the graph it was built from.
        version: of the library it was built with.
        target: the hardware it was built for.

    """

    engine: str
    component: str
    file: str
    precision: str
    version: str
    target: str


class Verification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a compiled component was from torch in float32, at one set of sizes.

    Attributes:
        component: what was compared.
        engine: what ran it.
        precision: of the graph.
        axes: the sizes.
        relative_error: largest difference over the largest value of the reference.

    """

    component: str
    engine: str
    precision: str
    axes: dict[str, int]
    relative_error: float


class MergedLora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA that is part of the exported weights.

    Attributes:
        name: of its file, without the ending.
        sha256: of what was read.
        strength: as the user set it: a number, or numbers by component and block.

    """

    name: str
    sha256: str
    strength: float | dict[str, object]


class PreviewMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What latents look like, roughly; see :mod:`~sdengine.engines.preview_map`.

    Attributes:
        colours: [C + 1][3], from a latent's channels and 1 to red, green and blue from 0 to 1.
        explained: share of the variance of decoded colours that this explains, on pixels that it was not fitted to.

    """

    colours: list[tuple[float, float, float]]
    explained: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole file.

    Attributes:
        schema: :data:`SCHEMA`.
        family: a name of :data:`~sdengine.engines.families.FAMILIES`.
        source: what the user exported, without its folder.
        engines: those the bundle was exported for, in the order of the command.
        networks: by name.
        components: by name.
        controlnets: names of the ControlNets, in the order of the command.
        tokenizers: folder of each tokenizer, relative to the bundle.
        pad_tokens: what each tokenizer pads with.
        model_index: the flags of the checkpoint's pipeline.
        default_size: height and width when the request names none.
        sizes: heights and widths to build profiles for; empty for one profile over the whole range.
        built: what engines made ahead of time.
        verification: results of the comparison with torch.
        tools: versions of what wrote the bundle.
        notes: what export decided.
        loras: what was merged into the weights, in the order of the command.
        exported_with: options of ``sdengine export`` that make it again, as words; files by their names alone.
        preview: how previews are made; None in bundles of earlier versions.
        files: every file of the bundle but this one, relative path to record.
        checksum: empty once the file has been read; see :func:`written_manifest`.

    """

    schema: int
    family: str
    source: str
    engines: list[str]
    networks: dict[str, Network]
    components: dict[str, Component]
    controlnets: list[str]
    tokenizers: dict[str, str]
    pad_tokens: dict[str, str]
    model_index: dict[str, object]
    default_size: tuple[int, int]
    sizes: list[tuple[int, int]]
    built: list[EngineFile]
    verification: list[Verification]
    tools: dict[str, str]
    notes: list[str]
    files: dict[str, FileRecord]
    loras: list[MergedLora] = []
    exported_with: list[str] = []
    preview: PreviewMap | None = None
    checksum: str = ""


class WrittenManifest(NamedTuple):
    """A manifest's text without its checksum, and whether that fits; True where there is none."""

    text: bytes
    whole: bool


_CHECKSUM = re.compile(rb',\s*"checksum":\s*"([^"]*)"\s*}\s*')
_CHECKSUM_BYTES = 200


def manifest_text(manifest: Manifest) -> bytes:
    """Return what to write as ``manifest.json``."""
    text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
    body = text.rstrip().removesuffix(b"}").rstrip()
    return body + b',\n "checksum": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def written_manifest(data: bytes) -> WrittenManifest:
    """Take the contents of ``manifest.json`` apart."""
    start = data.rfind(b",", max(0, len(data) - _CHECKSUM_BYTES))
    match = _CHECKSUM.fullmatch(data, start) if start >= 0 else None
    if match is None:
        return WrittenManifest(data, True)
    body = data[:start]
    return WrittenManifest(body + b"}", match[1] == hashlib.sha256(body).hexdigest().encode())
