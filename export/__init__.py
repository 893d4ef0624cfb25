"""Checkpoint -> bundle: offline work that needs torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .write_bundle import export_bundle

__all__ = ["export_bundle"]


def __getattr__(name: str) -> Any:
    # The demo's evaluation lives in this package and must not pull in torch.
    if name == "export_bundle":
        from .write_bundle import export_bundle

        return export_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
