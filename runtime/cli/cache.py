"""``sdengine cache``: the bundles that were exported at first use, by :mod:`sdengine.runtime.pipelines`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ...engines.errors import UsageError, nearest
from .console import out, print_json, table

__all__ = ["cache"]

_DAY = 24 * 3600.0


def cache(
    action: Annotated[str, typer.Argument(help="list, or clear: remove bundles.")] = "list",
    older_than: Annotated[float | None, typer.Option(min=0, help="clear: only those unused for so many days.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show or clear the bundles that were exported at first use."""
    from ..pipelines.bundle_cache import CachedBundle, cache_limit, cached_bundles, remove

    if action not in ("list", "clear"):
        raise UsageError(f"sdengine cache {action!r} is neither list nor clear{nearest(action, ('list', 'clear'))}")
    if action == "list" and older_than is not None:
        raise UsageError("--older-than goes with clear")
    bundles, removed, stay = cached_bundles(), list[CachedBundle](), dict[Path, str]()
    if action == "clear":
        for bundle in bundles:
            if time.time() - bundle.used >= (older_than or 0) * _DAY:
                if reason := remove(bundle):
                    stay[bundle.path] = reason
                else:
                    removed.append(bundle)
        bundles = [bundle for bundle in bundles if bundle not in removed]
    if json:
        print_json(
            {
                "bundles": [_described(bundle) for bundle in bundles],
                "removed": [_described(bundle) for bundle in removed],
                "limit_bytes": cache_limit(),
            }
        )
        return
    for bundle in removed:
        out.print(f"removed {bundle.path}", markup=False, highlight=False, soft_wrap=True)
    for path, reason in stay.items():
        out.print(f"{path} {reason}, and stays", markup=False, highlight=False, soft_wrap=True)
    if action == "list":
        shown = table("Bundles", "checkpoint", "precision", "engine", "MB", "last used")
        for bundle in bundles:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(bundle.used))
            cells = [", ".join(bundle.precisions), ", ".join(bundle.engines), f"{bundle.bytes / 1e6:.0f}", used]
            shown.add_row(bundle.source, *cells)
        if bundles:
            out.print(shown)
            out.print(f"in {bundles[0].path.parent}", markup=False, highlight=False, soft_wrap=True)
    total = sum(bundle.bytes for bundle in bundles)
    out.print(f"{len(bundles)} bundles, {total / 1e9:.1f} GB of {cache_limit() / 1e9:g} GB", highlight=False)


def _described(bundle: Any) -> dict[str, Any]:
    return {
        "path": str(bundle.path),
        "source": bundle.source,
        "engines": list(bundle.engines),
        "precisions": list(bundle.precisions),
        "bytes": bundle.bytes,
        "used": bundle.used,
    }
