"""``sdengine demo``: from nothing to images."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from ...engines.errors import SdengineError
from ..decode.contact_sheet import Cell, Row, contact_sheet
from .console import err, out, print_json, step_progress, table
from .options import Engine

__all__ = ["demo"]

_STEPS = 20
_GUIDANCE = 5.0  # best for the demo checkpoint; see its model card


@dataclass(frozen=True, kw_only=True)
class _Shot:
    """One call of the pipeline."""

    label: str
    prompt: str
    settings: dict[str, Any]


def _shots() -> Iterator[tuple[str, list[_Shot]]]:
    star = "a large yellow star on a blue background"
    ring = "a small red ring on a white background"
    circle = "a green circle on a black background"
    yield (
        "Prompts",
        [
            _Shot(label=prompt, prompt=prompt, settings={"seed": 7})
            for prompt in (
                star,
                ring,
                circle,
                "a purple square on an orange background",
                "a large white cross on a green background",
                "a cyan triangle on a pink background",
            )
        ],
    )
    yield "Seeds: " + star, [_Shot(label=f"seed {n}", prompt=star, settings={"seed": n}) for n in range(1, 7)]
    yield (
        "Guidance: " + circle,
        [
            _Shot(label=f"guidance {g:g}", prompt=circle, settings={"seed": 3, "guidance_scale": g})
            for g in (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
        ],
    )
    yield (
        "Micro-conditioning: " + star,
        [_Shot(label=label, prompt=star, settings={"seed": 11, **extra}) for label, extra in _CONDITIONS],
    )
    yield (
        "Sizes: " + ring,
        [
            _Shot(label=f"{w} x {h}", prompt=ring, settings={"seed": 5, "width": w, "height": h})
            for w, h in ((96, 96), (128, 96), (96, 128), (128, 128), (160, 128), (160, 160))
        ],
    )


_CONDITIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as it is", {}),
    ("original size 20 x 20", {"original_size": (20, 20)}),
    ("original size 10 x 10", {"original_size": (10, 10)}),
    ("24 px cropped above", {"crops_coords_top_left": (24, 0)}),
    ("24 px cropped left", {"crops_coords_top_left": (0, 24)}),
    ("24 px cropped above and left", {"crops_coords_top_left": (24, 24)}),
)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the bundle and the images.")] = Path(
        "sdengine-demo"
    ),
    engine: Engine = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export the built-in checkpoint and generate a contact sheet with it."""
    bundle = output / "bundle"
    _export(bundle, quiet=json)
    rows, timings, engines = _generate(bundle, engine, quiet=json)
    sheet = output / "contact-sheet.png"
    images = output / "pictures"
    images.mkdir(exist_ok=True)
    for row in rows:
        for i, cell in enumerate(row.cells):
            cell.image.save(images / f"{row.title.split(':')[0].lower()}-{i + 1}.png")
    heading = f"sdengine demo: {_STEPS} Euler steps on {', '.join(sorted(set(engines.values())))}"
    contact_sheet(rows, heading=heading).save(sheet)
    medians = {stage: round(median(values), 2) for stage, values in timings.items()}
    if json:
        files = {"contact_sheet": str(sheet), "pictures": str(images), "bundle": str(bundle)}
        print_json({**files, "engines": engines, "median_timings_ms": medians})
        return
    shown = table("Median time per image", "stage", "milliseconds")
    for stage, value in medians.items():
        shown.add_row(stage, f"{value:.1f}")
    out.print(shown)
    out.print(f"\nthe images are on one sheet: {sheet.resolve()}", highlight=False, soft_wrap=True)
    out.print(f"and one by one in {images.resolve()}", highlight=False, soft_wrap=True)
    out.print(f'try: sdengine run {bundle} "a large orange ring on a purple background" -o ring.png', markup=False)


def _export(bundle: Path, *, quiet: bool) -> None:
    """Export in a process of its own: this one generates, and never imports torch."""
    command = [sys.executable, "-m", "sdengine.runtime", "export", "demo", "-o", str(bundle), "--overwrite"]
    status = subprocess.run([*command, *(["--quiet"] if quiet else [])], check=False).returncode
    if status:
        raise SdengineError(f"the export of the demo checkpoint failed with status {status}")


def _generate(bundle: Path, engine: str, *, quiet: bool) -> tuple[list[Row], dict[str, list[float]], dict[str, str]]:
    from ..pipeline import Pipeline

    timings: dict[str, list[float]] = {}
    rows = []
    with Pipeline.load(bundle, engine=engine) as pipeline:
        err.print(f"generating on {', '.join(sorted(set(pipeline.components.ran.values())))}", highlight=False)
        for title, shots in _shots():
            cells = []
            with step_progress(title.split(":")[0], quiet=quiet) as progress:
                for i, shot in enumerate(shots):
                    result = pipeline(
                        shot.prompt, num_inference_steps=_STEPS, **{"guidance_scale": _GUIDANCE, **shot.settings}
                    )
                    progress(i + 1, len(shots))
                    cells.append(Cell(image=result.images[0], label=shot.label))
                    for stage, value in asdict(result.timings_ms).items():
                        if stage not in ("load", "encode"):
                            timings.setdefault(stage, []).extend(value if isinstance(value, list) else [value])
            rows.append(Row(title=title, cells=tuple(cells)))
        return rows, {("step" if k == "steps" else k): v for k, v in timings.items()}, dict(pipeline.components.ran)
