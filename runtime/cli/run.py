"""``sdengine run``: generate images."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ...engines.errors import UsageError
from ..request.request import Request
from .console import err, out, print_json, step_progress
from .opening_options import with_opening_options
from .options import BundlePath, LowMemory, parse_inversion, parse_scheduler_options
from .request_options import with_request_options

__all__ = ["run"]

_WORTH_SAYING_MS = 250


@with_request_options
@with_opening_options
def run(
    bundle: BundlePath,
    prompt: Annotated[
        list[str] | None, typer.Argument(help="What to generate; several prompts generate several images.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="PNG, JPEG or WebP; .npy with --output-type np or latent, .safetensors with embeds."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object about what was done.")] = False,
    embeds: Annotated[
        Path | None,
        typer.Option(
            help=".safetensors or .pt with prompt_embeds or image_embeds and their siblings, in place of a prompt."
        ),
    ] = None,
    textual_inversion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[=WORD[,WORD...]]",
            help="Embeddings of new words (.safetensors, .pt, .bin), and what to call them; repeatable.",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:WEIGHT]", help="LoRA to put over the weights, and how strongly; repeatable."),
    ] = None,
    lora_folder: Annotated[
        Path | None, typer.Option(help="Folder of LoRAs that prompts may name: <lora:NAME:0.8>, as may --lora.")
    ] = None,
    scheduler_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE on top of the scheduler's config; repeatable.")
    ] = None,
    scheduler_config: Annotated[
        Path | None, typer.Option(help="scheduler_config.json of diffusers, in place of the checkpoint's.")
    ] = None,
    refiner: Annotated[
        Path | None, typer.Option(help="Bundle of an SDXL refiner: use both, as an ensemble of experts.")
    ] = None,
    denoising_split: Annotated[
        float | None, typer.Option(help="Share of the schedule that the base runs. [0.8 with --refiner]")
    ] = None,
    refiner_strength: Annotated[
        float | None, typer.Option(help="Run the base to the end, then the refiner with this strength.")
    ] = None,
    settings: Any = None,
    opening: Any = None,
    low_memory: LowMemory = False,
) -> None:
    """Generate images with a bundle."""
    from ...engines.lora import parse_lora
    from .outputs import check_standard_output, output_files

    settings = {"prompt": _one_or_list(prompt), **settings}
    if scheduler_config is not None:
        settings["scheduler"] = _whole_config(scheduler_config, settings.get("scheduler"))
    if scheduler_option:
        settings["scheduler_config"] = parse_scheduler_options(scheduler_option)
    if embeds is not None:
        from ..prompt import load_embeddings

        settings |= load_embeddings(embeds)
    check_standard_output()
    request = Request.from_settings(**settings)
    files = output_files(output, request)
    opening["low_memory"] = low_memory
    loras = {"loras": [parse_lora(text) for text in lora or ()], "lora_folder": lora_folder}
    if refiner is None:
        if denoising_split is not None or refiner_strength is not None:
            raise UsageError("--denoising-split and --refiner-strength need --refiner BUNDLE")
        inversions = [parse_inversion(text) for text in textual_inversion or ()]
        result = _generate(bundle, request, {**opening, **loras, "textual_inversions": inversions}, json)
    elif textual_inversion:
        raise UsageError("--textual-inversion is not supported together with --refiner")
    else:
        result, request = _generate_refined(
            bundle, refiner, settings, opening, loras, denoising_split, refiner_strength, json
        )
    _save(result, request, files)
    if json:
        print_json(_report(result, files))
        return
    for warning in result.warnings:
        err.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    for name, reason in dict.fromkeys((f.skipped, f.reason) for f in result.fallbacks):
        err.print(f"{name} skipped: {reason}", style="yellow", markup=False, highlight=False)
    if result.auto_ms:
        took = ", ".join(f"{name} {ms:.3g} ms" for name, ms in sorted(result.auto_ms.items(), key=lambda one: one[1]))
        err.print(f"auto takes the fastest engine of this machine: {took} an evaluation", style="dim", highlight=False)
    if result.checks["hash_ms"] > _WORTH_SAYING_MS:
        hashed, seconds = result.checks["hashed_bytes"] / 1e6, result.checks["hash_ms"] / 1e3
        err.print(f"compared {hashed:.0f} MB with their SHA-256 in {seconds:.1f} s", style="dim", highlight=False)
    what = f"{result.width}x{result.height}" if result.width else f"{len(files)} embeddings"
    times, engines = result.timings_ms, sorted(set(result.engines.values()))
    for file, number in zip(files, result.seeds, strict=True):
        out.print(f"{file}  seed {number}", markup=False, highlight=False, soft_wrap=True)
    err.print(
        f"{what}, {len(times.steps)} evaluations on {', '.join(engines)}: "
        f"load {times.load:.0f} ms, text {times.text:.0f}, denoise {times.denoise:.0f}, decode {times.decode:.0f}, "
        f"total {times.total:.0f} ms",
        style="dim",
        highlight=False,
    )


def _generate(bundle: Path, request: Request, opening: dict[str, Any], quiet: bool) -> Any:
    """Generate with one bundle, which is opened with the LoRAs that the prompt names; they are not asked for again."""
    from ..lora_folder import LoraFolder
    from ..lora_set import LoraSources
    from ..pipeline import Pipeline
    from ..request.lora_request import loras_of_request

    folder = None if opening["lora_folder"] is None else LoraFolder(opening["lora_folder"])
    request, sources = loras_of_request(request, LoraSources.of(opening["loras"], folder), folder)
    opening = {**opening, "loras": sources.sources}
    with Pipeline.load(bundle, **opening) as pipeline, step_progress("generating", quiet=quiet) as progress:
        return pipeline.generate(request, progress)


def _generate_refined(
    bundle: Path,
    refiner: Path,
    settings: dict[str, Any],
    opening: dict[str, Any],
    loras: dict[str, Any],
    split: float | None,
    strength: float | None,
    quiet: bool,
) -> tuple[Any, Any]:
    """Generate with base and refiner; return the result and the refiner's request."""
    from ..ensemble import Ensemble
    from ..pipeline import Pipeline

    if split is not None and strength is not None:
        raise UsageError("--denoising-split and --refiner-strength are both set: use one of them")
    share = 0.8 if split is None and strength is None else split
    with Pipeline.load(bundle, **opening, **loras) as base, Pipeline.load(refiner, **opening) as second:
        both = Ensemble(base, second)
        requests = both.requests(settings, share, {} if strength is None else {"strength": strength})
        with step_progress("generating", quiet=quiet) as progress:
            return both.generate(*requests, progress), requests[1]


def _one_or_list(values: list[Any] | None) -> Any:
    if not values:
        return None
    return values[0] if len(values) == 1 else list(values)


def _whole_config(file: Path, scheduler: str | None) -> dict[str, Any]:
    """Read a scheduler's config; a named scheduler takes precedence over the one in the file."""
    from ..schedule.choice import read_scheduler_config

    return read_scheduler_config(file) | ({} if scheduler is None else {"_class_name": scheduler})


def _save(result: Any, request: Any, files: list[Path]) -> None:
    from ..decode.image_file import ImageRecord, save_image
    from .outputs import save_arrays, save_embeds

    if request.output_type == "embeds":
        save_embeds(files, result)
        return
    if request.output_type != "pil":
        save_arrays(files, result.images)
        return
    prompts = [request.prompt] if isinstance(request.prompt, str) else list(request.prompt or [""])
    for i, file in enumerate(files):
        record = ImageRecord(
            prompt=prompts[i // request.num_images_per_prompt % len(prompts)],
            negative_prompt=request.negative_prompt,
            seed=result.seeds[i],
            width=result.width,
            height=result.height,
            settings=result.settings,
            engines=result.engines,
        )
        save_image(result.images[i], file, record)


def _report(result: Any, files: list[Path]) -> dict[str, Any]:
    flags = result.nsfw_content_detected or [None] * len(files)
    return {
        "images": [
            {
                "path": str(file),
                "seed": seed,
                "width": result.width,
                "height": result.height,
                "nsfw_content_detected": flag,
            }
            for file, seed, flag in zip(files, result.seeds, flags, strict=True)
        ],
        "engines": result.engines,
        "fallbacks": [dataclasses.asdict(f) for f in result.fallbacks],
        "auto_ms": result.auto_ms,
        "timings_ms": dataclasses.asdict(result.timings_ms),
        "warnings": list(result.warnings),
        "settings": result.settings,
        "checks": result.checks,
        "loras": list(result.loras),
    }
