"""``sdengine fetch``: bring a checkpoint from the Hub; the front door runs it in a process of its own."""

from typing import Annotated

import typer

__all__ = ["fetch"]


def fetch(
    checkpoint: Annotated[str, typer.Argument(help="A path, OWNER/NAME or an address on the Hub, or demo.")],
    part: Annotated[str | None, typer.Option(help="Only this component, such as vae or controlnet.")] = None,
    variant: Annotated[str | None, typer.Option(help="Weights of a folder, fp16 for instance.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    token: Annotated[str | None, typer.Option(help="Access token for the Hub.", envvar="HF_TOKEN")] = None,
    safety_checker: Annotated[
        bool, typer.Option("--safety-checker/--no-safety-checker", help="The safety checker of SD 1 and 2, too.")
    ] = True,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
) -> None:
    """Fetch a checkpoint from the Hub; print where it is, as JSON."""
    import json

    from rich.console import Console

    from ...export.checkpoint.hub import Hub
    from ...export.checkpoint.open import locate

    console = Console(stderr=True, highlight=False, emoji=False)
    with console.status(f"fetching {checkpoint}"):
        hub = Hub(revision=revision, token=token, offline=offline, safety_checker=safety_checker)
        path, notes = locate(checkpoint, hub, variant, part=part)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    print(json.dumps({"path": str(path)}))
