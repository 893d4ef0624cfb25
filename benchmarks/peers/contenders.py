"""Who takes part."""

from dataclasses import dataclass

__all__ = ["CONTENDERS", "Contender"]


@dataclass(frozen=True)
class Contender:
    """A way to run Stable Diffusion.

    Attributes:
        environment: what it runs in, see :mod:`environments`.
        script: the module that runs there.
        variant: what the script is asked for.
        exporter: environment and script that make of the checkpoint what it runs, once; None takes the checkpoint.

    """

    environment: str
    script: str
    variant: str = ""
    exporter: tuple[str, str] | None = None


_ONNX = ("optimum-onnx", "optimum_pipelines.py")
_INTEL = ("optimum-intel", "optimum_pipelines.py")

CONTENDERS = {
    "ours, openvino fp32": Contender("ours", "ours.py", "openvino:fp32"),
    "ours, openvino bf16": Contender("ours", "ours.py", "openvino:bf16"),
    "ours, openvino bf16, bfloat16 bundle": Contender("ours", "ours.py", "openvino:bf16:bf16_bundle"),
    "ours, onnxruntime fp32": Contender("ours", "ours.py", "onnxruntime:fp32"),
    "diffusers, eager float32": Contender("diffusers", "torch_diffusers.py", "float32"),
    "diffusers, eager bfloat16, channels last": Contender("diffusers", "torch_diffusers.py", "bfloat16"),
    "diffusers, torch.compile bfloat16": Contender("diffusers", "torch_diffusers.py", "compiled"),
    "optimum-onnx": Contender(*_ONNX, "onnxruntime", _ONNX),
    "optimum-intel": Contender(*_INTEL, "openvino", _INTEL),
    "optimum-intel, fixed size": Contender(*_INTEL, "openvino:static", _INTEL),
    "stable-diffusion.cpp, bfloat16": Contender(
        "stable-diffusion.cpp", "sd_cpp.py", "bf16", ("ours", "single_file.py")
    ),
}
