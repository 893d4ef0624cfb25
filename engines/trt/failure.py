"""Turns what a library says into what happened, where, and what to try."""

import re
from collections.abc import Sequence

from ..errors import EngineError

__all__ = ["build_error", "parse_error"]

_MEMORY = re.compile(r"out\s?of\s?memory|insufficient memory|memory allocation|failed to allocate", re.IGNORECASE)
_BYTES = re.compile(r"(\d{6,})\s*(?:bytes|\))")
_NO_DRIVER = re.compile(r"cuInit|CUDA driver|no CUDA-capable|initialization failure", re.IGNORECASE)


def parse_error(
    component: str, library: str, errors: Sequence[tuple[str, str, str]], said: Sequence[str]
) -> EngineError:
    """Say which operator the parser refused.

    Args:
        component: what was parsed.
        library: which library parsed it.
        errors: operator, node name and description of each of the parser's errors.
        said: what the library logged, for where the parser itself tells nothing.

    """
    if not errors:
        return EngineError(f"{component}: {library} cannot read the graph: {'; '.join(said) or 'no reason given'}")
    operator, node, text = errors[0]
    where = f"operator {operator or 'unknown'}" + (f" (node {node})" if node else "")
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return EngineError(
        f"{component}: {library} refuses {where}{more}: {text.strip()}. "
        "Export the bundle again with this version of sdengine, or in another precision"
    )


def build_error(
    component: str, library: str, errors: Sequence[str], *, layers: Sequence[str], largest: str
) -> EngineError:
    """Say what could not be compiled.

    Args:
        component: what was built.
        library: which library built it.
        errors: what it logged.
        layers: names of the network's layers, to find the one that is meant.
        largest: the largest shapes of the build, for an error of memory.

    """
    text = " ".join(errors) or "the library gave no reason"
    named = [name for name in layers if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\w)", text)]
    where = f" at {', '.join(named[:3])}" if named else ""
    if _MEMORY.search(text):
        amount = _BYTES.search(text)
        much = f" ({int(amount[1]) / 2**20:.0f} MiB were wanted)" if amount else ""
        hint = (
            f"Memory ran out{much} for shapes up to {largest}: export with fewer or smaller sizes or a smaller batch, "
            "or build with a workspace limit, weight streaming or a lower optimisation level"
        )
    elif _NO_DRIVER.search(text):
        hint = "The build wanted a GPU or its driver; `sdengine doctor` tells what is missing"
    else:
        hint = "Try another optimisation level, or export in another precision (fp32 is compiled most widely)"
    return EngineError(f"{component}: {library} cannot compile it{where}: {_shortened(text)}. {hint}")


def _shortened(text: str, most: int = 600) -> str:
    text = re.sub(r"\s+", " ", text).strip().rstrip(".")
    return text if len(text) <= most else text[:most] + " [...]"
