"""Checks a manifest as data before anything is done with it: names, references, hashes, shapes.

A manifest may be damaged or malicious. One that passes names only files inside the bundle that are there, and has the
components that this version would export from these configs: in the same order, with the same inputs.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NoReturn

from ..component_specs import ShapeSource
from ..errors import DamagedBundleError
from ..families import FAMILIES
from ..kinds import IO_DTYPES, kind_of
from ..nets.network_config import NetworkConfig
from ..spec import ComponentSpec, split_dim
from .manifest import Component, Manifest

__all__ = ["check_components", "check_manifest"]

PRECISIONS = ("fp32", "bf16", "fp16")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIXELS_MOST = 2**15
_AXIS_MOST = 2**16
_COLOUR_MOST = 1e6
_ENTRIES_MOST = 10_000
"""Largest list or mapping: an SDXL bundle with plans lists about 50 files."""


def check_manifest(where: str, manifest: Manifest) -> None:
    """Check everything that needs no config.

    Raises:
        DamagedBundleError: a field holds what cannot be; the text names it.

    """
    check = _Check(where)
    for name, record in manifest.files.items():
        check.path("files", name)
        check.that(_SHA256.fullmatch(record.sha256), f"files.{name}.sha256", record.sha256, "no SHA-256")
        check.that(record.bytes >= 0, f"files.{name}.bytes", record.bytes, "no size")
    check.that(len(manifest.files) <= _ENTRIES_MOST, "files", len(manifest.files), "too many files")
    for field in ("networks", "components", "tokenizers", "pad_tokens"):
        check.names(field, getattr(manifest, field))
    check.names("controlnets", manifest.controlnets)
    check.names("engines", manifest.engines)
    for name, network in manifest.networks.items():
        check.listed(f"networks.{name}.weights", network.weights, manifest.files)
        check.that(network.parameters >= 0, f"networks.{name}.parameters", network.parameters, "no number of elements")
    for name in manifest.controlnets:
        check.listed("controlnets", name, manifest.networks)
    for name, folder in manifest.tokenizers.items():
        check.path(f"tokenizers.{name}", folder)
    for name, component in manifest.components.items():
        _check_component(check, name, component, manifest)
    for i, built in enumerate(manifest.built):
        field = f"built.{i}"
        check.names(field, (built.engine, built.version, built.target))
        check.listed(f"{field}.component", built.component, manifest.components)
        check.listed(f"{field}.file", built.file, manifest.files)
        check.listed(f"{field}.precision", built.precision, PRECISIONS)
    for size in (manifest.default_size, *manifest.sizes):
        check.that(all(0 < n <= _PIXELS_MOST for n in size), "sizes", size, "no size of an image")


def check_components(where: str, manifest: Manifest, configs: Mapping[str, NetworkConfig]) -> None:
    """Compare the components with those that the configs lead to.

    Raises:
        DamagedBundleError: a component is missing, or has other inputs, outputs or types; the text names it.

    """
    check = _Check(where)
    controlled = bool(manifest.controlnets)
    family = FAMILIES[manifest.family]
    needed = (*family.networks, *manifest.controlnets)
    for network in needed:
        check.listed("networks", network, manifest.networks)
    for encoder in family.text_encoders:
        check.listed("tokenizers", encoder.replace("text_encoder", "tokenizer"), manifest.tokenizers)
    for network in manifest.networks:
        check.that(
            network in (*needed, family.safety_checker),
            f"networks.{network}",
            None,
            f"no network of a bundle of {manifest.family}",
        )
    for network, config in configs.items():
        for name, _ in kind_of(config).components_of(network):
            check.listed("components", name, manifest.components)
            owner = manifest.components[name].network
            check.that(owner == network, f"components.{name}.network", owner, f"not {network}")
    for name, component in manifest.components.items():
        for precision, graph in component.graphs.items():
            field = f"components.{name}.graphs.{precision}.spec"
            spec = graph.spec
            config = configs[component.network]
            kind = dict(kind_of(config).components_of(component.network)).get(name)
            if kind is None or kind.name != component.kind:
                check.fail(f"components.{name}.kind", component.kind, f"nothing that {component.network} is made into")
            dtype = IO_DTYPES[precision]
            source = ShapeSource(name=name, config=config, dtype=dtype, axes=spec.axes, controlled=controlled)
            expected = kind.spec(source)
            for attribute in ("name", "inputs", "outputs", "axes"):
                check.that(
                    getattr(spec, attribute) == getattr(expected, attribute),
                    f"{field}.{attribute}",
                    None,
                    f"not what the config of {component.network} leads to",
                )
    if manifest.preview is not None:
        rows, latent = manifest.preview.colours, getattr(configs[family.autoencoder], "latent", 0)
        check.that(
            len(rows) == latent + 1, "preview.colours", len(rows), f"not one row for each of {latent} channels, and one"
        )
        check.that(
            all(abs(value) <= _COLOUR_MOST for row in rows for value in row), "preview.colours", None, "too large"
        )


def _check_component(check: "_Check", name: str, component: Component, manifest: Manifest) -> None:
    field = f"components.{name}"
    check.listed(f"{field}.network", component.network, manifest.networks)
    check.that(component.graphs, f"{field}.graphs", {}, "empty")
    for precision, graph in component.graphs.items():
        check.listed(f"{field}.graphs", precision, PRECISIONS)
        check.listed(f"{field}.graphs.{precision}.file", graph.file, manifest.files)
        if graph.contrib is not None:
            check.listed(f"{field}.graphs.{precision}.contrib", graph.contrib, manifest.files)
        # The graph looks for its weights beside it.
        weights = manifest.networks[component.network].weights
        beside = PurePosixPath(graph.file).parent == PurePosixPath(weights).parent
        check.that(beside, f"{field}.graphs.{precision}.file", graph.file, f"not beside {weights}")
        _check_spec(check, f"{field}.graphs.{precision}.spec", graph.spec)


def _check_spec(check: "_Check", field: str, spec: ComponentSpec) -> None:
    for axis, allowed in spec.axes.items():
        check.that(allowed.max <= _AXIS_MOST, f"{field}.axes.{axis}.max", allowed.max, f"more than {_AXIS_MOST}")
    for tensor in (*spec.inputs, *spec.outputs):
        for dim in tensor.shape:
            if isinstance(dim, int):
                check.that(0 < dim <= 2**24, f"{field}.{tensor.name}", dim, "no dimension")
                continue
            try:
                factor, axis, divisor = split_dim(dim)
            except ValueError:
                check.fail(f"{field}.{tensor.name}", dim, "no dimension")
            check.that(0 < factor <= 2**10 and 0 < divisor <= 2**10, f"{field}.{tensor.name}", dim, "no dimension")
            check.listed(f"{field}.{tensor.name}", axis, spec.axes)


class _Check:
    def __init__(self, where: str) -> None:
        self._where = where

    def fail(self, field: str, value: object, why: str) -> NoReturn:
        shown = "" if value is None else f" is {_short(value)}, which"
        raise DamagedBundleError(
            f"{self._where}: {_short(field, quoted=False)}{shown} is {why}; export the checkpoint again"
        )

    def that(self, holds: object, field: str, value: object, why: str) -> None:
        if not holds:
            self.fail(field, value, why)

    def listed(self, field: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            self.fail(field, name, f"not among {_short(', '.join(known) or 'nothing', quoted=False)}")

    def names(self, field: str, names: Iterable[str]) -> None:
        for name in names:
            self.that(_NAME.fullmatch(name), field, name, "no name")

    def path(self, field: str, name: str) -> None:
        """Check that a path stays in the bundle, on any system."""
        parts = name.split("/")
        if not all(_NAME.fullmatch(part) for part in parts):
            self.fail(field, name, "outside the bundle, or no file name")


def _short(value: object, *, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    return text if len(text) <= 200 else text[:200] + "..."
