"""``sdengine debug``: where a compiled component departs from the reference."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...engines.install_hint import install_hint

if TYPE_CHECKING:
    from ...export.debug.departure import Departure, LayerDifference

__all__ = ["debug"]

_NEEDS = ("torch", "onnx", "onnx_ir", "polygraphy")


def debug(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `sdengine export` wrote.", show_default=False)],
    component: Annotated[list[str] | None, typer.Argument(help="Which components; all if none is named.")] = None,
    engine: Annotated[
        str, typer.Option(help="The engine to examine; see `sdengine doctor`.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    against: Annotated[str, typer.Option(help="The reference, in float32: torch or onnxruntime.")] = "torch",
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16; the first that engine and bundle have.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: the engine's.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; what the bundle is optimised for.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest difference of a layer over its largest value. [fp32 0.001, fp16 0.03, bf16 0.2]"),
    ] = None,
    show: Annotated[int, typer.Option(min=1, help="How many of the layers over tolerance to show.")] = 5,
    memory: Annotated[int, typer.Option(min=1, help="MiB of layers' outputs to hold of each side at once.")] = 1024,
    plain: Annotated[
        bool, typer.Option("--plain", help="Run the plain graph, without sdengine's own rewriting.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Folder to write inputs and outputs to, in Polygraphy's format.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the first layers of a compiled component that depart from the reference.

    Exit status: 0 all within tolerance, 1 a layer or an output departs, 2 wrong usage.
    """
    from importlib.util import find_spec

    from rich.console import Console

    from ...engines.errors import SdengineError

    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise SdengineError(f"debug needs {', '.join(missing)}; {install_hint('export', 'debug')}")
    console = Console(stderr=True, highlight=False)
    with console.status("loading torch") as status:
        from ...engines.bundle.bundle import Bundle
        from ...export.debug.find import DebugSettings, find_departure

        opened = Bundle(bundle)

        def report(line: str) -> None:
            status.update(line)
            if not console.is_terminal:
                console.print(line, markup=False)

        names = list(dict.fromkeys(component or opened.manifest.components))
        for name in names:
            opened.component(name)
        folders = _folders(save, names)
        settings = DebugSettings(
            against=against,
            precision=precision,
            device=device,
            size=_size(size),
            seed=seed,
            tolerance=tolerance,
            show=show,
            memory=memory << 20,
            plain=plain,
        )
        departures = [
            find_departure(opened, name, engine, settings, report=report, save=folder)
            for name, folder in zip(names, folders, strict=True)
        ]
    if json:
        _print_json(departures, folders)
    else:
        for departure, folder in zip(departures, folders, strict=True):
            _print(departure, folder)
    if any(departure.departs for departure in departures):
        raise typer.Exit(1)


def _size(text: str | None) -> tuple[int, int] | None:
    """Read ``WIDTHxHEIGHT``; return height and width."""
    import re

    from ...engines.errors import UsageError

    match = re.fullmatch(r"(\d+)x(\d+)", text or "")
    if text is not None and match is None:
        raise UsageError(f"--size {text!r}: write WIDTHxHEIGHT, like 1024x768")
    return None if match is None else (int(match[2]), int(match[1]))


def _folders(save: Path | None, names: list[str]) -> list[Path | None]:
    """Return the folder of each component; what cannot be written is refused before the work, not after it."""
    import os

    from ...engines.errors import UsageError

    if save is None:
        return [None] * len(names)
    folders: list[Path | None] = [save if len(names) == 1 else save / name for name in names]
    if save.exists():
        raise UsageError(f"--save {save}: it exists already")
    parent = next(folder for folder in save.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"--save {save}: {parent} is no folder that can be written")
    return folders


def _print_json(departures: "list[Departure]", folders: list[Path | None]) -> None:
    import json

    import msgspec

    components = [
        msgspec.to_builtins(departure)
        | {"departs": departure.departs, "saved": None if folder is None else str(folder)}
        for departure, folder in zip(departures, folders, strict=True)
    ]
    departs = any(departure.departs for departure in departures)
    print(json.dumps({"departs": departs, "components": components}, indent=2, ensure_ascii=False))


def _print(departure: "Departure", folder: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 160  # nothing there wraps

    def line(text: str, style: str | None = None) -> None:
        out.print(text, markup=False, style=style, soft_wrap=True)

    sizes = ", ".join(f"{axis} {size}" for axis, size in departure.axes.items())
    line(
        f"{departure.component}: {departure.engine} in {departure.precision} on {departure.device}, at {sizes}", "bold"
    )
    line(f"graph: {departure.graph}; ran: {departure.ran}")
    line(
        f"against {departure.against} in float32; "
        f"tolerance {departure.tolerance:g} of a layer's largest value: {departure.reason}"
    )
    line(
        f"compared {departure.compared} of {departure.layers} layers"
        + (f"; {departure.unseen} are not in what ran" if departure.unseen else "")
    )
    for note in departure.notes:
        line(f"note: {note}")
    if departure.first:
        shown = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
        for column in ("value", "operator", "shape", "type", "error", "of its inputs"):
            shown.add_column(column, overflow="fold")
        for layer in departure.first:
            shown.add_row(*_row(layer))
        line(f"first over tolerance, of {departure.over}:", "red")
        out.print(shown, markup=False)
        for layer in departure.first:
            if layer.note:
                line(f"{layer.value}: {layer.note}", "yellow")
    elif departure.departs:
        line("every layer is within tolerance where its value is an output, and yet:", "red")
    elif departure.worst is not None:
        line(
            f"all within tolerance; the largest error is {_error(departure.worst.error)}, of {departure.worst.value}",
            "green",
        )
    errors = ", ".join(f"{name} {_error(error)}" for name, error in departure.outputs.items())
    line(f"outputs as it runs for images: {errors}")
    if departure.departs and not departure.first:
        line("a fusion that marking the values undoes may be the cause")
    if folder is not None:
        from ...export.debug.save import COMMAND

        line(f"saved to {folder}; to repeat: cd {folder} && sh {COMMAND}")
        line(f"  {(folder / COMMAND).read_text().splitlines()[-1]}", "dim")


def _row(layer: "LayerDifference") -> tuple[str, ...]:
    inputs = "" if layer.inputs_error is None else _error(layer.inputs_error)
    name = layer.value if layer.node in (layer.value, "") else f"{layer.value} ({layer.node})"
    return name, layer.operator, str(list(layer.shape)), layer.dtype, _error(layer.error), inputs


def _error(error: float | None) -> str:
    return "not a number" if error is None else f"{error:.2g}"
