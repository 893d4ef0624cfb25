"""What was measured, as a table."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from contenders import CONTENDERS
from processes import Told

__all__ = ["comparison", "psnr", "table", "versions"]

_HEAD = (
    "| contender | s | least to most | calls | CPU s | others' CPU | open, s | peak RSS, MB | of bfloat16 peak | PSNR |"
)


def psnr(actual: Any, expected: Any) -> str:
    if actual is None or expected is None or actual.shape != expected.shape:
        return ""
    span = 255.0 if expected.dtype == np.uint8 else float(np.ptp(expected))
    error = float(np.sqrt(np.mean((actual.astype(np.float64) - expected) ** 2)))
    return f"{20 * np.log10(span / error):.1f} dB" if error else "equal"


def table(results: Mapping[str, list[Told]], apart: Mapping[str, str], flops: float | None, peak: float | None) -> str:
    """Return the table.

    Args:
        results: what each contender told in each round.
        apart: how far each contender's result is from the first one's.
        flops: of a step, if a step was measured.
        peak: GFLOP/s in bfloat16.

    """
    lines = [_HEAD, "| --- |" + " ---: |" * 9]
    for name, rounds in results.items():
        errors = [told["error"] for told in rounds if "error" in told]
        if errors or not rounds:
            why = errors[0].replace("|", "\\|") if errors else "interrupted before"
            lines.append(f"| {name} | not run: {why} |" + " |" * 8)
            continue
        walls = _all(rounds, "wall")
        middle = statistics.median(walls)
        share = f"{100 * flops / middle / 1e9 / peak:.0f} %" if flops and peak else ""
        opening = statistics.median(told["open"] for told in rounds)
        cells = [
            f"{middle:.3f}",
            f"{min(walls):.3f} to {max(walls):.3f}",
            str(len(walls)),
            f"{statistics.median(_all(rounds, 'cpu')):.2f}",
            f"{100 * max(told['other'] for told in rounds):.0f} %",
            f"{opening:.1f}",
            f"{max(told['peak_rss_mb'] for told in rounds):.0f}",
            share,
            apart.get(name, ""),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def comparison(results: Mapping[str, list[Told]]) -> str:
    """Say how many times the speed of the fastest peer our fastest has."""
    walls = {name: _all(rounds, "wall") for name, rounds in results.items() if rounds and "error" not in rounds[-1]}
    ours = {name: times for name, times in walls.items() if CONTENDERS[name].environment == "ours"}
    peers = {name: times for name, times in walls.items() if name not in ours}
    if not ours or not peers:
        return ""
    said = []
    for how, of in (("medians", statistics.median), ("least times", min)):
        mine, theirs = min(ours, key=lambda n: of(ours[n])), min(peers, key=lambda n: of(peers[n]))
        said.append(f"by {how} {of(peers[theirs]) / of(ours[mine]):.2f} ({mine}; {theirs})")
    return f"Our speed over the fastest peer's: {', '.join(said)}."


def versions(results: Mapping[str, list[Told]]) -> str:
    """Name the libraries of each environment."""
    versions: dict[str, str] = {}
    for name, rounds in results.items():
        for told in rounds:
            said = ", ".join(f"{package} {number}" for package, number in told.get("versions", {}).items())
            versions.setdefault(CONTENDERS[name].environment, said)
    return "\n".join(f"{environment}: {said}" for environment, said in versions.items() if said)


def _all(rounds: list[Told], what: str) -> list[float]:
    return [seconds for told in rounds for seconds in told.get(what, [])]
