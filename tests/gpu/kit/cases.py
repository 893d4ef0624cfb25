"""What is drawn at published sizes, and who draws it."""

from dataclasses import dataclass
from typing import Any

from .contenders import Contender, diffusers_pipeline, sdengine_pipeline
from .prepare import PRECISION, bundle_at, checkpoint_at
from .setting import Setting

__all__ = ["CASES", "COMPILED", "GRAPHS", "Case", "open_contender", "settings_of"]

GRAPHS = ("sdengine-off", "sdengine-step", "sdengine-loop")
COMPILED = (("diffusers-blocks", "diffusers-compiled"), ("sdengine-compiled",))
"""Contenders that torch.compile compiles; those of the second tuple begin when those of the first are ready."""
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


CASES = {
    "sdxl": Case(kind="sdxl", size=1024, steps=30, guidance=5.0, batches=(1, 4), rounds=5),
    "sd15": Case(kind="sd15", size=512, steps=50, guidance=7.5, batches=(1,), rounds=5),
}


def settings_of(setting: Setting, case: Case) -> dict[str, Any]:
    """Return the arguments of a call, beside prompt, seed and number of images."""
    tiny = setting.scale == "tiny"
    size = 64 if tiny else case.size
    steps = 2 if tiny else case.steps
    return {"height": size, "width": size, "guidance_scale": case.guidance, "num_inference_steps": steps}


def open_contender(setting: Setting, case: Case, name: str, *, dtype: str | None = None) -> Contender:
    """Open a contender.

    Args:
        setting: where.
        case: what it draws.
        name: ``diffusers`` or ``sdengine``, a hyphen, and how it runs.
        dtype: of diffusers' weights; None is half precision on a GPU and float32 on a CPU.

    """
    who, _, how = name.partition("-")
    settings = settings_of(setting, case)
    if who == "diffusers":
        dtype = dtype or ("float32" if setting.device == "cpu" else _DTYPES[PRECISION])
        checkpoint = checkpoint_at(setting, case.kind)
        return diffusers_pipeline(name, checkpoint, settings, device=setting.device, dtype=dtype, compiled=how)
    opening: dict[str, Any] = {"engine": "torch", "device": setting.device, "precision": PRECISION}
    opening |= {"cuda_graph": "loop", "compile": True} if how == "compiled" else {"cuda_graph": how}
    return sdengine_pipeline(name, bundle_at(setting, case.kind), settings, **opening)
