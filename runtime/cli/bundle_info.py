"""``sdengine inspect``: what a bundle holds."""

from typing import Annotated, Any

import msgspec
import typer

from ...engines.bundle.bundle import Bundle
from ...engines.bundle.foreign_files import foreign_files
from ...engines.bundle.pixel_sizes import pixel_range
from ...engines.spec import AxisRange
from .bundle_memory import memory_of, print_memory
from .bundle_precision import precisions_of, precisions_table
from .console import out, print_json, table
from .options import BundlePath

__all__ = ["inspect"]


def inspect(
    bundle: BundlePath,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest and more as JSON.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Show the memory that its plans need on the device.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare the SHA-256 of every file.")] = False,
) -> None:
    """Show what a bundle holds."""
    opened = Bundle(bundle, verify="always" if check else "once")  # files may have changed since an earlier comparison
    unlisted: list[str] = []
    if check:
        for name in opened.manifest.files:
            opened.checked_file(name)
        for folder in opened.manifest.tokenizers.values():
            opened.checked_folder(folder)  # a file too many there is one that would be read
        for component, record in opened.manifest.components.items():
            for graph in record.graphs.values():
                for name in filter(None, (graph.file, graph.contrib)):
                    opened.checked_graph(component, name)
        unlisted = foreign_files(opened.path)
    if json:
        content = msgspec.to_builtins(opened.manifest) | {"precisions": precisions_of(opened)}
        print_json(content | ({"memory": memory_of(opened)} if memory else {}))
        return
    if memory:
        print_memory(opened)
        return
    manifest = opened.manifest
    size = sum(record.bytes for record in manifest.files.values())
    height, width = manifest.default_size
    out.print(f"[bold]{manifest.source}[/bold], family {manifest.family}, {size / 1e6:.1f} MB, {width}x{height} px")
    if sizes := _sizes(opened):
        out.print(sizes, highlight=False)
    out.print(f"for {', '.join(manifest.engines)}; scheduler {opened.scheduler().get('_class_name')}", highlight=False)
    out.print(f"exported with: {opened.export_command()}", markup=False, highlight=False, soft_wrap=True)
    for lora in manifest.loras:
        out.print(f"LoRA {lora.name} merged, strength {lora.strength}", markup=False, highlight=False)
    if check:
        out.print(f"all {len(manifest.files)} files have the SHA-256 of the manifest", style="green")
        for name in unlisted:
            out.print(f"not of the bundle, and never read: {name}", markup=False, highlight=False, soft_wrap=True)
    for shown in (
        _networks(opened),
        _components(opened),
        precisions_table(opened),
        _axes(opened),
        _verification(opened),
    ):
        if shown.row_count:
            out.print()
            out.print(shown)
    for note in manifest.notes:
        out.print(f"note: {note}", markup=False, highlight=False)
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    out.print(f"\nwritten by {tools}", style="dim", highlight=False)


def _networks(bundle: Bundle) -> Any:
    shown = table("Networks", "network", "class", "parameters", "stored as", "MB")
    for name, network in bundle.manifest.networks.items():
        size = bundle.manifest.files[network.weights].bytes
        shown.add_row(name, network.class_name, f"{network.parameters / 1e6:.2f} M", network.dtype, f"{size / 1e6:.1f}")
    return shown


def _components(bundle: Bundle) -> Any:
    shown = table("Components", "component", "network", "precision", "graph MB", "inputs", "outputs")
    shown.columns[-1].overflow = "fold"
    for name, component in bundle.manifest.components.items():
        for precision, graph in component.graphs.items():
            size = bundle.manifest.files[graph.file].bytes
            outputs = ", ".join(tensor.name for tensor in graph.spec.outputs)
            shown.add_row(name, component.network, precision, f"{size / 1e6:.2f}", str(len(graph.spec.inputs)), outputs)
    return shown


def _sizes(bundle: Bundle) -> str:
    """Say which sizes can be generated, in pixels: those that were listed, and the rule for others."""
    if "denoiser" not in bundle.manifest.components:
        return ""
    ranges = [pixel_range(bundle, axis) for axis in ("h", "w")]
    height, width = (f"{own.least} to {own.most}" if own.least < own.most else str(own.most) for own in ranges)
    listed = ", ".join(f"{w}x{h}" for h, w in bundle.manifest.sizes)
    sides = f"width and height {width}" if width == height else f"width {width}, height {height}"
    rule = f"sizes: {sides} px, in multiples of {ranges[0].multiple}"
    if bundle.family.sizes == "rounded":
        rule += ", to which others are rounded up"
    return f"{rule}; listed: {listed} (width x height)" if listed else f"{rule} (width x height)"


def _axes(bundle: Bundle) -> Any:
    meanings = {
        "S": "samples in one launch",
        "R": "rows: evaluations of the UNet at once",
        "B": "texts encoded at once",
        "T": "tokens of a row's text",
        "E": "added embeddings",
        "h": "height in latents",
        "w": "width in latents",
    }
    shown = table("Axes", "axis", "meaning", "least", "optimised for", "most")
    axes: dict[str, AxisRange] = {}
    for component in bundle.manifest.components.values():
        for graph in component.graphs.values():
            # A VAE takes tiles, too, which are smaller than images.
            axes |= {axis: allowed for axis, allowed in graph.spec.axes.items() if axis not in axes}
    for axis, allowed in axes.items():
        shown.add_row(axis, meanings.get(axis, ""), str(allowed.min), str(allowed.opt), str(allowed.max))
    return shown


def _verification(bundle: Bundle) -> Any:
    shown = table(
        "Largest relative difference from torch in float32", "component", "engine", "precision", "at", "error"
    )
    for result in bundle.manifest.verification:
        axes = " ".join(f"{axis}={length}" for axis, length in result.axes.items())
        shown.add_row(result.component, result.engine, result.precision, axes, f"{result.relative_error:.1e}")
    return shown
