"""The environments that peers run in, made when they are first needed."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from processes import run

__all__ = ["CACHE", "python_of"]

CACHE = Path(__file__).parents[2] / ".work" / "peers"
_TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class _Recipe:
    """What pip is asked for.

    Attributes:
        packages: pinned, so that figures of two days are of the same libraries.
        unwanted: what comes along and must go.
        cmake: options of a library that is compiled here.

    """

    packages: tuple[str, ...]
    unwanted: tuple[str, ...] = field(default=())
    cmake: str = ""


_RECIPES = {
    "diffusers": _Recipe((_TORCH, "diffusers==0.42.1", "transformers==5.23.0", "accelerate")),
    "optimum-onnx": _Recipe((_TORCH, "optimum-onnx[onnxruntime]==0.1.0", "diffusers==0.39.0")),
    # torchvision would be a build for another torch, which fails when transformers imports it
    "optimum-intel": _Recipe((_TORCH, "optimum-intel[openvino,diffusers]==2.2.0"), unwanted=("torchvision",)),
    # compiled for this CPU; without llamafile's kernels, which its build leaves out, it is three times slower
    "stable-diffusion.cpp": _Recipe(("stable-diffusion-cpp-python==0.4.7", "numpy"), cmake="-DGGML_LLAMAFILE=ON"),
}


def python_of(name: str) -> str:
    """Return the interpreter of an environment; ``ours`` is the one that runs this.

    Raises:
        ProcessError: it cannot be installed; the message is pip's last line.

    """
    if name == "ours":
        return sys.executable
    recipe, folder = _RECIPES[name], CACHE / name
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists() and done.read_text(encoding="utf-8") == repr(recipe):
        return str(python)
    print(f"{name}: installing {' '.join(recipe.packages)}", file=sys.stderr, flush=True)
    done.unlink(missing_ok=True)
    install = [str(python), "-m", "pip", "install", *recipe.packages]
    environment = dict(os.environ)
    if recipe.cmake:
        install.append("--no-cache-dir")  # pip keeps what it compiled without remembering the options
        install += ["--no-binary", recipe.packages[0].partition("=")[0], "--force-reinstall"]
        environment["CMAKE_ARGS"] = recipe.cmake
    commands = [[sys.executable, "-m", "venv", str(folder)], install]
    commands += [[str(python), "-m", "pip", "uninstall", "--yes", package] for package in recipe.unwanted]
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in commands:
        run(command, CACHE / f"{name}.log", environment)
    done.write_text(repr(recipe), encoding="utf-8")
    return str(python)
