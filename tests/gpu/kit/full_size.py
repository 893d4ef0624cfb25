"""A checkpoint of published size, drawn by everyone in turns."""

from dataclasses import dataclass
from typing import Any

from .contenders import Contender, diffusers_pipeline, sdengine_pipeline
from .prepare import PRECISION, checkpoint_at, wait_for
from .profile import profile_image
from .race import Race
from .record import Record
from .setting import Setting

__all__ = ["Case", "run_case"]

_GRAPHS = ("off", "step", "loop")
_PATIENCE = 60
"""Seconds without which compiling is not begun."""
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is drawn.

    Attributes:
        kind: of checkpoint.
        size: of the square image, in pixels.
        steps: of the solver.
        guidance: scale.
        batches: images of a call.
        rounds: of each comparison, as far as time goes.

    """

    kind: str
    size: int
    steps: int
    guidance: float
    batches: tuple[int, ...]
    rounds: int


def run_case(setting: Setting, record: Record, case: Case) -> None:
    """Measure those first that need no patience, then diffusers compiled, then the rest as far as time goes."""
    tiny = setting.scale == "tiny"
    size = 64 if tiny else case.size
    settings = {"height": size, "width": size, "guidance_scale": case.guidance}
    settings["num_inference_steps"] = 2 if tiny else case.steps
    bundle = wait_for(setting, case.kind, record)
    race = Race(record, f"{case.kind} {size}x{size}, {settings['num_inference_steps']} steps", setting.device)

    def ours(name: str, **options: Any) -> Contender:
        opening = {"engine": "torch", "device": setting.device, "precision": PRECISION, **options}
        return sdengine_pipeline(name, bundle, settings, **opening)

    def theirs(name: str, *, compiled: bool) -> Contender:
        dtype = "float32" if setting.device == "cpu" else _DTYPES[PRECISION]
        checkpoint = checkpoint_at(setting, case.kind)
        return diffusers_pipeline(name, checkpoint, settings, device=setting.device, dtype=dtype, compiled=compiled)

    race.enter(lambda: theirs("diffusers", compiled=False))
    for graph in _GRAPHS:
        race.enter(lambda graph=graph: ours(f"sdengine-{graph}", cuda_graph=graph))  # type: ignore[misc]
    captured = [f"sdengine-{graph}" for graph in _GRAPHS]
    race.run(["diffusers", *captured], rounds=case.rounds)
    if setting.compile and race.enter(lambda: theirs("diffusers-compiled", compiled=True)):
        race.run(["diffusers", "diffusers-compiled", *captured[1:]], rounds=case.rounds)
    if setting.gpu and record.left > 15:
        with record.check(f"{case.kind}: where the time of an image goes"):
            profile_image(record, ours("profiled", cuda_graph="off"), case.kind)
    for batch in case.batches:
        if batch != 1 and record.left > 40:
            race.run(["diffusers", "sdengine-step"], rounds=2, batch=batch)
    if setting.compile and record.left > _PATIENCE:
        if race.enter(lambda: ours("sdengine-compiled", cuda_graph="loop", compile=True)):
            race.run(["sdengine-loop", "sdengine-compiled", "diffusers-compiled"], rounds=3)
    elif setting.compile:
        record.skipped("sdengine compiled", f"{record.left:.0f} s were left")
    race.close()
