"""The sections, most valuable first."""

from dataclasses import dataclass

__all__ = ["SECTIONS", "Section"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the kit.

    Attributes:
        name: also of its files in the report.
        title: for people.
        module: in this package; it has ``run(setting, record)``.
        limit: seconds after which it is stopped; the last section that is run may take all that is left.
        alone: it looks at the GPU's whole memory, so nothing else may use the GPU beside it.

    """

    name: str
    title: str
    module: str
    limit: float
    alone: bool = False


SECTIONS = (
    Section(name="device", title="The driver layer", module="on_device", limit=90, alone=True),
    Section(name="parity", title="Every task's image, against torch on the CPU", module="parity", limit=120),
    Section(name="sdxl", title="SDXL, 1024x1024, 30 steps", module="sdxl", limit=390),
    Section(name="sd15", title="SD 1.5, 512x512, 50 steps", module="sd15", limit=100),
    Section(name="engines", title="ONNX Runtime and TensorRT on the GPU", module="other_engines", limit=60),
)
"""Checkpoints and bundles of published sizes are made beside the first two, by ``prepare``, and contenders are compiled
beside those that need not be alone, by ``compiled``."""
