"""The versions of the packages that decide what can run here, and how fast."""

import contextlib
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_packages"]

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "transformers",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "tokenizers",
    "safetensors",
    "pillow",
    "msgspec",
)


def installed_packages() -> dict[str, str]:
    """Return the versions of those packages that decide what can run, and how fast."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
