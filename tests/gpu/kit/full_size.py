"""A checkpoint of published size, drawn by everyone in turns."""

from dataclasses import dataclass
from typing import Any

from .contenders import Contender, diffusers_pipeline, sdengine_pipeline
from .prepare import PRECISION, bundle_at, checkpoint_at, wait_for
from .profile import profile_image
from .race import Race
from .record import Record
from .setting import Setting

__all__ = ["Case", "run_case"]

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
    """Measure the eager ones first, which need no patience, then those that compile, then larger batches."""
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

    assert bundle == bundle_at(setting, case.kind)
    race.enter(lambda: theirs("diffusers", compiled=False))
    race.enter(lambda: ours("sdengine-plain", cuda_graph="off"))
    race.enter(lambda: ours("sdengine-step", cuda_graph="step"))
    race.run(["diffusers", "sdengine-plain", "sdengine-step"], rounds=case.rounds)
    compiled = ["sdengine-compiled-step", "sdengine-compiled-loop", "diffusers-compiled"]
    if setting.compile:
        race.enter(lambda: ours(compiled[0], cuda_graph="step", compile=True))
        race.run(["sdengine-step", compiled[0]], rounds=3)
        race.enter(lambda: ours(compiled[1], cuda_graph="loop", compile=True))
        race.enter(lambda: theirs(compiled[2], compiled=True))
        race.run(["diffusers", "sdengine-step", *compiled], rounds=case.rounds)
    for batch in case.batches:
        if batch != 1 and record.left > 40:
            race.run(["diffusers", "sdengine-step"], rounds=2, batch=batch)
    if setting.gpu and record.left > 15:
        with record.check(f"{case.kind}: where the time of an image goes"):
            profile_image(record, ours("profiled", cuda_graph="off", compile=setting.compile), case.kind)
    race.close()
