"""The environments that peers run in, made when they are first needed."""

import subprocess
import sys
from pathlib import Path

__all__ = ["CACHE", "python_of"]

CACHE = Path(__file__).parents[2] / ".work" / "peers"
_TORCH = "torch==2.13.0"
_PACKAGES: dict[str, tuple[str, ...]] = {
    "diffusers": (_TORCH, "diffusers", "transformers", "accelerate"),
    "optimum-onnx": (_TORCH, "optimum-onnx[onnxruntime]", "diffusers"),
    "optimum-intel": (_TORCH, "optimum-intel[openvino,diffusers]"),
    "stable-diffusion.cpp": ("stable-diffusion-cpp-python", "numpy"),
}
_UNWANTED = {"optimum-intel": "torchvision"}  # a build for another torch, which fails when transformers imports it


def python_of(name: str) -> str:
    """Return the interpreter of an environment; ``ours`` is the one that runs this.

    Raises:
        RuntimeError: it cannot be installed; the message is pip's last line.

    """
    if name == "ours":
        return sys.executable
    folder = CACHE / name
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return str(python)
    folder.parent.mkdir(parents=True, exist_ok=True)
    commands = [[sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", *_PACKAGES[name]]]
    if name in _UNWANTED:
        commands.append([str(python), "-m", "pip", "uninstall", "--yes", _UNWANTED[name]])
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError((ran.stderr.strip().splitlines() or ["pip failed"])[-1])
    done.touch()
    return str(python)
