"""``sdengine export``: compile a checkpoint into a bundle."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...engines.install_hint import install_hint
from .plan_options import with_plan_options

__all__ = ["export"]


@with_plan_options
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, a .safetensors or .ckpt, OWNER/NAME or an address on the Hub, or demo."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.", show_default=False)],
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Engine to export for; repeatable: its precision is exported, and it is compared with torch. `run` "
            "takes the fastest that can run the bundle, whichever it was exported for. "
            "[onnxruntime]"
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    sizes: Annotated[
        str | None, typer.Option(help="1024x1024,832x1216 (width x height) or 512..1024. [half to twice the native]")
    ] = None,
    batch: Annotated[str, typer.Option(help="Images generated at once.")] = "1..4",
    controlnet: Annotated[list[str] | None, typer.Option(help="ControlNet checkpoint; repeatable.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:WEIGHT]", help="LoRA to merge into the weights, and how strongly; repeatable."),
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="Prior of a Kandinsky 2.2 decoder. [the one that its model card names]")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Another VAE.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder with the tokenizers, for single files.")] = None,
    config: Annotated[str | None, typer.Option(help="Folder with configs, for single files.")] = None,
    prediction_type: Annotated[str | None, typer.Option(help="epsilon, v_prediction or sample.")] = None,
    safety_checker: Annotated[
        bool | None,
        typer.Option(
            "--safety-checker/--no-safety-checker",
            help="Export the safety checker of SD 1 and 2, or leave it out. [where the checkpoint has one]",
            show_default=False,
        ),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Weights of a folder, fp16 for instance.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    token: Annotated[str | None, typer.Option(help="Access token for the Hub.", envvar="HF_TOKEN")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    verify: Annotated[str, typer.Option(help="full, fast or off: compare each component with torch.")] = "fast",
    stop_after: Annotated[
        str | None, typer.Option(help="graphs: build no engines ahead of time; works for every precision anywhere.")
    ] = None,
    vae_tiling: Annotated[
        str,
        typer.Option(metavar="on|off", help="on: compile the VAE for tiles only, of the size that it was trained on."),
    ] = "off",
    plans: Any = None,
    copy_weights: Annotated[
        bool, typer.Option("--copy-weights", help="Copy large weights files, too, rather than hard-link them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of that name.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Export a checkpoint to a bundle: graphs, weights, engines."""
    import time
    from importlib.util import find_spec

    from rich.console import Console

    from ...engines.errors import SdengineError, UsageError
    from ...engines.lora import parse_lora

    if vae_tiling not in ("on", "off"):
        raise UsageError(f"--vae-tiling {vae_tiling!r} is neither on nor off")
    console = Console(stderr=True, quiet=quiet, highlight=False, emoji=False)
    started = time.perf_counter()
    with console.status("loading torch") as status:
        missing = [name for name in ("torch", "onnx", "onnx_ir") if find_spec(name) is None]
        if missing:
            raise SdengineError(f"export needs {', '.join(missing)}; {install_hint('export')}")
        from ...export.write_bundle import export_bundle

        def report(line: str) -> None:
            console.print(f"[dim]{time.perf_counter() - started:6.1f} s[/dim]  ", end="")
            console.print(line, markup=False)
            status.update(line)

        bundle = export_bundle(
            checkpoint,
            output,
            engines=engine or ["onnxruntime"],
            precision=precision,
            sizes=sizes,
            batch=batch,
            controlnets=controlnet or (),
            loras=[parse_lora(text) for text in lora or ()],
            verify=verify,  # type: ignore[arg-type]  # checked by export_bundle, as the next one
            stop_after=stop_after,  # type: ignore[arg-type]
            vae_tiling=vae_tiling == "on",
            build=plans,
            link_weights=not copy_weights,
            overwrite=overwrite,
            report=report,
            prior=prior,
            vae=vae,
            tokenizer=tokenizer,
            config=config,
            prediction_type=prediction_type,
            safety_checker=safety_checker,
            variant=variant,
            revision=revision,
            token=token,
            offline=offline,
        )
    size = sum(record.bytes for record in bundle.manifest.files.values())
    console.print(
        f"[green]wrote[/green] {bundle.path}: {len(bundle.manifest.components)} components, {size / 1e6:.1f} MB, "
        f"{time.perf_counter() - started:.1f} s"
    )
