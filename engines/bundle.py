"""Opens a bundle: reads its manifest, checks its files."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from .errors import BundleError
from .manifest import SCHEMA, Component, Graph, Manifest
from .nets.config import UNetConfig
from .nets.text_config import TextEncoderConfig
from .nets.vae_config import VAEConfig

__all__ = ["MANIFEST", "PRECISIONS", "SCHEDULER", "Bundle", "file_sha256", "resolve_config"]

MANIFEST = "manifest.json"
SCHEDULER = "scheduler.json"
PRECISIONS = ("fp32", "bf16", "fp16")
_MANIFEST_LIMIT = 64 * 2**20


def file_sha256(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bundle:
    """A bundle on disk.

    Args:
        path: its folder.

    Attributes:
        path: the folder, absolute.
        manifest: its contents.

    Raises:
        BundleError: there is no bundle, its manifest cannot be read, or a file is missing or of another size.

    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.manifest = _read_manifest(Path(path))
        for name, record in self.manifest.files.items():
            file = self.file(name)
            if not file.is_file():
                raise BundleError(f"{self.path} is incomplete: {name} is missing; export it again")
            if file.stat().st_size != record.bytes:
                raise BundleError(
                    f"{self.path} is damaged: {name} has {file.stat().st_size} bytes, the manifest says {record.bytes}"
                )
        self._checked: set[str] = set()

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest names.

        Raises:
            BundleError: the name leads out of the bundle.

        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise BundleError(f"{self.path}: the manifest names {name!r}, which is outside the bundle")
        return self.path.joinpath(*relative.parts)

    def checked_file(self, name: str) -> Path:
        """Return the path of a file after comparing its hash; each file is hashed once.

        Raises:
            BundleError: the manifest does not list it, or its contents have changed.

        """
        if name not in self._checked:
            record = self.manifest.files.get(name)
            if record is None:
                raise BundleError(f"{self.path}: the manifest lists no hash for {name}")
            if file_sha256(self.file(name)) != record.sha256:
                raise BundleError(f"{self.path}: {name} is not the file that was exported (its SHA-256 differs)")
            self._checked.add(name)
        return self.file(name)

    @property
    def text_encoders(self) -> list[str]:
        """Names of the text encoders, in order."""
        return [name for name in self.manifest.networks if name.startswith("text_encoder")]

    def component(self, name: str) -> Component:
        """Return a component's record.

        Raises:
            BundleError: the bundle does not hold it.

        """
        component = self.manifest.components.get(name)
        if component is None:
            have = ", ".join(self.manifest.components)
            raise BundleError(f"{self.path} has no component {name!r}; it has {have}")
        return component

    def graph(self, name: str, precision: str) -> Graph:
        """Return a component's graph in a precision.

        Raises:
            BundleError: the bundle does not hold it.

        """
        graphs = self.component(name).graphs
        if precision not in graphs:
            raise BundleError(f"{self.path} holds {name} in {', '.join(graphs)}, not in {precision}; export it again")
        return graphs[precision]

    def scheduler(self) -> dict[str, object]:
        """Return the checkpoint's scheduler config."""
        return msgspec.json.decode(self.checked_file(SCHEDULER).read_bytes(), type=dict[str, object])

    def config(self, network: str) -> UNetConfig | VAEConfig | TextEncoderConfig:
        """Return a network's configuration, resolved."""
        return resolve_config(self.manifest, network)


def resolve_config(manifest: Manifest, network: str) -> UNetConfig | VAEConfig | TextEncoderConfig:
    """Resolve the configuration of a network of a manifest."""
    record = manifest.networks[network]
    config: dict[str, Any] = record.config
    if network == "vae":
        return VAEConfig.from_diffusers(config)
    if network.startswith("text_encoder"):
        return TextEncoderConfig.from_transformers(
            config,
            projected=record.class_name == "CLIPTextModelWithProjection",
            final_norm=not manifest.family.startswith("sdxl"),
        )
    return UNetConfig.from_diffusers(config, pooled=_pooled_width(manifest))


def _pooled_width(manifest: Manifest) -> int | None:
    """Width of the last text encoder's pooled text, which SDXL's UNets are conditioned on."""
    record = manifest.networks.get("text_encoder_2")
    if record is None:
        return None
    config: dict[str, Any] = record.config
    return int(config.get("projection_dim", 512))


def _read_manifest(path: Path) -> Manifest:
    if not path.exists():
        raise BundleError(f"there is no bundle at {path}; `sdengine export CHECKPOINT -o {path}` makes one")
    file = path / MANIFEST
    if not file.is_file():
        hint = "a checkpoint: export it first" if (path / "model_index.json").is_file() else "not a bundle"
        raise BundleError(f"{path} has no {MANIFEST}; it is {hint}")
    if file.stat().st_size > _MANIFEST_LIMIT:
        raise BundleError(f"{file} is larger than {_MANIFEST_LIMIT >> 20} MiB; it is no manifest")
    data = file.read_bytes()
    try:
        schema = msgspec.json.decode(data).get("schema")
        if schema != SCHEMA:
            raise BundleError(f"{path} has schema {schema}, this version reads {SCHEMA}; export it again")
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, AttributeError, ValueError) as error:
        raise BundleError(f"{file} cannot be read: {error}") from error
