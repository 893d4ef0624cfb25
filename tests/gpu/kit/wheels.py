"""Collects what a machine without a network may lack: ``python -m tests.gpu.kit.wheels FOLDER``."""

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PRESENT = (
    "torch",
    "numpy",
    "pillow",
    "rich",
    "typer",
    "safetensors",
    "tokenizers",
    "onnx",
    "onnx-ir",
    "ml_dtypes",
    "cuda-bindings",
)
"""What the kit expects to be there, with what these need; the rest is collected."""
PACKAGES = (
    *("msgspec", "threadpoolctl"),
    *("diffusers", "importlib_metadata", "zipp", "regex", "requests", "urllib3", "certifi", "charset-normalizer"),
    *("transformers", "lazy-importer"),
    *("pytest", "pluggy", "iniconfig"),
)
"""What sdengine, its exporter, diffusers and the kit's checks need beside that. Of these, the kit uses those that are
not installed where it runs."""
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
_LIMIT = 30 << 20


def main() -> int:
    """Download the wheels, in the versions that are installed here, for another Python and platform."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kit.wheels")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--machine", default="x86_64")
    options = parser.parse_args()
    platforms = [word for name in _PLATFORMS for word in ("--platform", f"{name}_{options.machine}")]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    command = [*pip, "--python-version", options.python, *platforms, "-d", str(options.folder), *wanted]
    status = subprocess.run(command, check=False).returncode
    if status:
        return status
    sizes = {file.name: file.stat().st_size for file in sorted(options.folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size / 1e6:6.1f} MB  {name}")
    if sum(sizes.values()) > _LIMIT:
        print(f"more than {_LIMIT >> 20} MiB in all", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
