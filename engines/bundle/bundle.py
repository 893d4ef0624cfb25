"""Opens a bundle: reads its manifest, checks its files."""

import copy
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from ..errors import BundleError, CheckpointError, DamagedBundleError, UsageError, nearest
from ..families import FAMILIES, Family
from ..files.json_data import json_data
from ..nets.config_check import checked_config
from ..nets.movq_config import MoVQConfig
from ..nets.network_config import NetworkConfig, network_config
from ..nets.vae_config import VAEConfig
from ..weights import Overlay, WeightSet
from .export_command import export_command
from .file_checks import FileChecks, HashPolicy, file_sha256
from .graph_locations import check_locations
from .manifest import MANIFEST, MANIFEST_LIMIT, SCHEMA, Component, Graph, Manifest, written_manifest
from .manifest_check import PRECISIONS, check_components, check_manifest
from .whole_folder import restore_replaced

__all__ = ["MANIFEST", "PRECISIONS", "SCHEDULER", "Bundle", "file_sha256", "resolve_config"]

SCHEDULER = "scheduler.json"
_T = TypeVar("_T")


class Bundle:
    """A bundle on disk.

    Args:
        path: its folder.
        verify: when files are compared with their hashes before they are used: ``always`` at every start; ``once``
            after a file has changed, for large files, while small ones are compared at every start; ``never`` leaves
            out the weights, and only them.

    Attributes:
        path: the folder, absolute.
        manifest: its contents.
        checks: what was compared with hashes.

    Raises:
        BundleError: there is no bundle, or it is of another schema.
        DamagedBundleError: its manifest cannot be read, or a file is missing or of another size.

    """

    def __init__(self, path: str | Path, *, verify: HashPolicy = "once") -> None:
        self.path = Path(path).resolve()
        self.manifest, whole = _read_manifest(Path(path))
        for name, record in self.manifest.files.items():
            self._check_size(name, record.bytes)
        self._changed: dict[str, WeightSet] = {}
        self.checks = FileChecks(self.path, self.manifest.files, verify)
        try:
            self._configs = {name: resolve_config(self.manifest, name) for name in self.manifest.networks}
        except CheckpointError as error:
            raise DamagedBundleError(f"{self.path}/{MANIFEST}: {error}; export the checkpoint again") from error
        check_components(f"{self.path}/{MANIFEST}", self.manifest, self._configs)
        if not whole:  # last, since a field can be named
            raise DamagedBundleError(
                f"{self.path}/{MANIFEST} is not as it was written (its checksum differs); copy it again, "
                "or export the checkpoint again"
            )

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest names.

        Raises:
            BundleError: the name leads out of the bundle.

        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise BundleError(f"{self.path}: {name!r} is outside the bundle")
        return self.path.joinpath(*relative.parts)

    def _check_size(self, name: str, size: int) -> None:
        """Check what costs nothing: that a file is there, is a file, and is as long as it should be."""
        file = self.file(name)
        try:
            status = file.lstat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedBundleError(
                f"{self.path} is incomplete: {name} is missing; export it again: {self.export_command()}"
            ) from error
        except OSError as error:
            raise DamagedBundleError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
            raise DamagedBundleError(f"{self.path}: {name} is {kind}; put the file itself there")
        if status.st_size != size:
            raise DamagedBundleError(
                f"{self.path} is damaged: {name} has {status.st_size} bytes, the manifest says {size}; "
                "copy it again, or export the checkpoint again"
            )

    def checked_file(self, name: str) -> Path:
        """Return the path of a file after comparing its hash.

        Raises:
            BundleError: the manifest does not list it, or its contents have changed.

        """
        file = self.file(name)
        self.checks.check(name, file)
        return file

    def checked_folder(self, name: str) -> Path:
        """Return the path of a folder after comparing the hashes of its files.

        Raises:
            BundleError: a file has changed, or one that would be read is not listed in the manifest.

        """
        folder = self.file(name)
        listed = {file for file in self.manifest.files if PurePosixPath(file).parent == PurePosixPath(name)}
        for file in sorted(listed):
            self.checked_file(file)
        for entry in folder.glob("*") if folder.is_dir() else ():
            unlisted = f"{name}/{entry.name}"
            if unlisted not in listed and entry.suffix in (".json", ".txt"):
                raise BundleError(f"{self.path}: the manifest does not list {unlisted}; remove it")
        return folder

    def checked_graph(self, component: str, graph: str) -> Path:
        """Return the path of a component's graph, after comparing its hash and that of the weights that it points to.

        Raises:
            DamagedBundleError: one of them has changed, or the graph points to another file.

        """
        weights = self.checked_weights(self.component(component).network)
        file = self.checked_file(graph)
        check_locations(file, weights.name)
        return file

    def checked_weights(self, network: str) -> Path:
        """Return the path of a network's weights after comparing their hash, unless that was to be left out.

        Raises:
            BundleError: they have changed.

        """
        return self.weights(network).file

    def weights(self, network: str) -> WeightSet:
        """Return a network's weights, which engines are opened from.

        The file is identified by its SHA-256, if it is compared with that.

        Raises:
            DamagedBundleError: the file has changed.

        """
        name = self.manifest.networks[network].weights
        base = self.checks.check(name, self.file(name), skippable=True)
        changed = self._changed.get(network)
        if changed is not None and changed.base != base:
            raise DamagedBundleError(f"{self.path}: {name} has changed since its changes were computed")
        return changed or WeightSet(file=self.file(name), base=base)

    def with_changes(self, changes: Mapping[str, Overlay]) -> "Bundle":
        """Return this bundle with other weights, which engines that are opened from it use.

        Args:
            changes: by network, what is used in place of its tensors; over what was exported, not over what this
                bundle has changed already.

        Raises:
            UsageError: there is no such network or tensor, or a tensor has another shape or type.

        """
        for network in changes:
            if network not in self.manifest.networks:
                raise UsageError(f"there is no network {network!r}{nearest(network, self.manifest.networks)}")
        other = copy.copy(self)
        other._changed = {name: self.weights(name).with_changes(overlay) for name, overlay in changes.items()}
        return other

    @property
    def family(self) -> Family:
        """The family of its models."""
        return FAMILIES[self.manifest.family]

    @property
    def text_encoders(self) -> list[str]:
        """Names of the text encoders, in order."""
        return [name for name in self.manifest.networks if name.startswith("text_encoder")]

    @property
    def safety_checker(self) -> str | None:
        """Name of the network that looks at the images; None where the bundle has none."""
        name = self.family.safety_checker
        return name if name in self.manifest.networks else None

    def component(self, name: str) -> Component:
        """Return a component's record.

        Raises:
            BundleError: the bundle does not hold it.

        """
        component = self.manifest.components.get(name)
        if component is None:
            have = ", ".join(self.manifest.components) or "none"
            raise BundleError(f"{self.path} has no component {name!r}; it has {have}")
        return component

    def graph(self, name: str, precision: str) -> Graph:
        """Return a component's graph in a precision.

        Raises:
            BundleError: the bundle does not hold it.

        """
        graphs = self.component(name).graphs
        if precision not in graphs:
            again = self.export_command("--precision", precision)
            raise BundleError(
                f"{self.path} holds {name} in {', '.join(graphs)}, not in {precision}; export it again: {again}"
            )
        return graphs[precision]

    def export_command(self, *changes: str) -> str:
        """Return the command that exports the bundle again; see :func:`~.export_command.export_command`."""
        return export_command(self.path, self.manifest.source, self.manifest.exported_with, *changes)

    def scheduler(self, file: str = SCHEDULER) -> dict[str, object]:
        """Return the checkpoint's scheduler config, or the one of a stage before, by its file."""
        return self.settings(file)

    def settings(self, file: str) -> dict[str, object]:
        """Return the contents of a JSON file of the checkpoint, after comparing its hash.

        Raises:
            DamagedBundleError: it is not what was exported, or holds no object.

        """
        path = self.checked_file(file)
        try:
            return _decoded(path.read_bytes(), dict[str, object])
        except ValueError as error:
            raise DamagedBundleError(f"{path} cannot be read: {error}; export the checkpoint again") from error

    @property
    def autoencoder(self) -> VAEConfig | MoVQConfig:
        """The configuration of the network between pixels and latents."""
        config = self.config(self.family.autoencoder)
        assert isinstance(config, VAEConfig | MoVQConfig)
        return config

    def config(self, network: str) -> NetworkConfig:
        """Return a network's configuration, resolved.

        Raises:
            BundleError: the bundle does not hold the network.

        """
        if network not in self._configs:
            raise BundleError(f"{self.path} has no network {network!r}; it has {', '.join(self._configs) or 'none'}")
        return self._configs[network]


def resolve_config(manifest: Manifest, network: str) -> NetworkConfig:
    """Resolve the configuration of a network of a manifest.

    Raises:
        CheckpointError: the config cannot be of such a network, or is of one that is not supported.

    """
    record = manifest.networks[network]
    config: dict[str, Any] = record.config
    final_norm = FAMILIES[manifest.family].text.final_norm
    pooled = _pooled_width(manifest) if "addition_embed_type" in config else None
    return checked_config(
        network, config, lambda: network_config(record.class_name, config, pooled=pooled, final_norm=final_norm)
    )


def _pooled_width(manifest: Manifest) -> int | None:
    """Width of the last text encoder's pooled text, which SDXL's UNets are conditioned on."""
    record = manifest.networks.get("text_encoder_2")
    if record is None:
        return None
    width = record.config.get("projection_dim", 512)
    if not isinstance(width, int):
        raise CheckpointError(f"the config of text_encoder_2 has projection_dim={width!r}, which is no width")
    return width


def _manifest_bytes(path: Path) -> bytes:
    if not path.exists() and not restore_replaced(path):
        raise BundleError(f"there is no bundle at {path}; `sdengine export CHECKPOINT -o {path}` makes one")
    file = path / MANIFEST
    if not file.is_file():
        hint = "a checkpoint: export it first" if (path / "model_index.json").is_file() else "not a bundle"
        raise BundleError(f"{path} has no {MANIFEST}; it is {hint}")
    if file.stat().st_size > MANIFEST_LIMIT:
        raise BundleError(f"{file} is larger than {MANIFEST_LIMIT >> 20} MiB; it is no manifest")
    return file.read_bytes()


def _read_manifest(path: Path) -> tuple[Manifest, bool]:
    file = path / MANIFEST
    try:
        data = _manifest_bytes(path)
    except OSError as error:  # a name that is too long, a folder without rights
        raise DamagedBundleError(f"{file} cannot be read: {error.strerror}") from error
    try:
        header = msgspec.json.decode(data, type=_Header)
        if header.schema != SCHEMA:
            raise BundleError(_of_another_schema(path, header))
        written = written_manifest(data)
        manifest = _decoded(written.text, Manifest)
    except (ValueError, RecursionError) as error:
        raise DamagedBundleError(f"{file} cannot be read: {error}; export the checkpoint again") from error
    if manifest.family not in FAMILIES:
        raise BundleError(f"{path} is of the family {manifest.family!r}; this version knows {', '.join(FAMILIES)}")
    check_manifest(str(file), manifest)
    return manifest, written.whole and not manifest.checksum


def _decoded(text: bytes, type_: type[_T]) -> _T:
    """Decode JSON; that a name occurs twice in one object is a ValueError, as msgspec's own errors are."""
    json_data(text)
    return msgspec.json.decode(text, type=type_)


class _Header(msgspec.Struct):
    """What every schema has; other fields are not looked at."""

    schema: int
    source: str = "CHECKPOINT"
    exported_with: list[str] = []
    tools: dict[str, str] = {}


def _of_another_schema(path: Path, header: _Header) -> str:
    writer = f" (it was written by sdengine {header.tools['sdengine']})" if "sdengine" in header.tools else ""
    message = f"{path} has schema {header.schema}, this version reads {SCHEMA}{writer}"
    if header.schema > SCHEMA:
        return f"{message}; update sdengine, or export the checkpoint again with this version"
    return f"{message}; make a new one: {export_command(path, header.source, header.exported_with)}"
