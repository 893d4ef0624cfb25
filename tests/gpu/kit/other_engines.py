"""ONNX Runtime and TensorRT on the GPU, where they are installed."""

from sdengine.engines.registry import ENGINES
from sdengine.runtime import Pipeline

from ..setting import psnr
from .parity import bundles
from .record import Record, Skip
from .setting import Setting

__all__ = ["run"]

_ENGINES = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
_REQUEST = {"height": 64, "width": 96, "num_inference_steps": 4, "seed": 5, "output_type": "np"}


def run(setting: Setting, record: Record) -> None:
    """Draw with each of them; what needs plans is built by ``make gpu``."""
    if not setting.gpu:
        raise Skip("it is about GPUs")
    path = bundles({"sd1": 1}, setting.tiny)["sd1"].result()
    for name in _ENGINES:
        with record.check("an engine draws", engine=name) as figures:
            reason = ENGINES[name].module.unavailable()
            if reason is not None:
                raise Skip(reason)
            if name != "onnxruntime-cuda":
                raise Skip(f"run: make gpu ENGINE={name}")
            with (
                Pipeline.load(path, engine="torch", device="cpu", precision="fp32") as plain,
                Pipeline.load(path, engine=name, device=setting.device, precision="fp32") as pipe,
            ):
                images = pipe("a red cube", **_REQUEST).images
                figures["psnr"] = round(psnr(images, plain("a red cube", **_REQUEST).images), 1)
                assert figures["psnr"] > 45
