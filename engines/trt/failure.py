"""Turns a library's error into what happened, where, and what to try."""

import re
from collections.abc import Sequence

from ..errors import EngineError
from .build_options import BuildOptions

__all__ = ["build_error", "parse_error"]

_MEMORY = re.compile(
    r"out\s?of\s?memory|insufficient memory|memory allocation|failed to allocate|bad_alloc", re.IGNORECASE
)
_BYTES = re.compile(r"(\d{6,})\s*(?:bytes|\))|requested size (?:was|of) (\d{6,})", re.IGNORECASE)
_WORKSPACE = re.compile(r"within workspace limit|increase the (?:allowed )?workspace", re.IGNORECASE)
_COMPILER_NEEDS_GPU = re.compile(r"CHECK\(status == CUDA_SUCCESS\) failed")
_NO_DRIVER = re.compile(r"cuInit|CUDA driver|no CUDA-capable|initialization failure", re.IGNORECASE)
_WEIGHT = re.compile(r"Failed to import initializer: (?!In node)(\S+?)\.?$")
_TYPES = re.compile(r"same (?:data )?type|must have .*type|types? .*(?:mismatch|not match)", re.IGNORECASE)

# Logged after every other error on a machine without a driver, and never the cause.
_AFTERMATH = re.compile(r"catchCudaError.*cudaError 35|Output shape can not be computed for node", re.DOTALL)


def parse_error(
    component: str, library: str, errors: Sequence[tuple[str, str, str]], messages: Sequence[str]
) -> EngineError:
    """Say which operator the parser refused.

    Args:
        component: what was parsed.
        library: which library parsed it.
        errors: operator, node name and description of each of the parser's errors.
        messages: what the library logged, used where the parser itself reports no error.

    """
    if not errors:
        return EngineError(f"{component}: {library} cannot read the graph: {'; '.join(messages) or 'no reason given'}")
    operator, node, text = errors[0]
    lines = [line for line in text.strip().splitlines() if line and not _AFTERMATH.search(line)]
    text = _shortened(" ".join(lines))
    if weight := _WEIGHT.search(text):
        return EngineError(
            f"{component}: {library} cannot read the weight {weight[1]}; the weights file beside the graph is missing "
            "or of another export: export the bundle again"
        )
    where = f"operator {operator or 'unknown'}" + (f" (node {node})" if node else "")
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    cause = "Types are never converted silently. " if _TYPES.search(text) else ""
    return EngineError(
        f"{component}: {library} refuses {where}{more}: {text}. {cause}"
        "Export the bundle again with this version of sdengine, or in another precision"
    )


def build_error(
    component: str,
    library: str,
    errors: Sequence[str],
    *,
    layers: Sequence[str],
    largest: str,
    options: BuildOptions,
    workspace: int | None = None,
) -> EngineError:
    """Say what could not be compiled.

    Args:
        component: what was built.
        library: which library built it.
        errors: what it logged.
        layers: names of the network's layers, to find those that the error names.
        largest: the largest shapes of the build, for an error of memory.
        options: of the build.
        workspace: the limit of kernels' scratch memory in bytes, if any.

    """
    messages = [text for text in errors if not _AFTERMATH.search(text)] or list(errors)
    text = " ".join(messages) or "the library gave no reason"
    named = [name for name in layers if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\w)", text)]
    where = f" at {', '.join(named[:3])}" if named else ""
    hint = _hint(text, library, largest, options, workspace)
    return EngineError(f"{component}: {library} cannot compile it{where}: {_shortened(text)}. {hint}")


def _hint(text: str, library: str, largest: str, options: BuildOptions, workspace: int | None) -> str:
    if _WORKSPACE.search(text):
        limit = "" if workspace is None else f" ({workspace / 2**20:.0f} MiB were allowed)"
        return (
            f"A kernel needs more scratch memory{limit} for shapes up to {largest}: allow more with --workspace, leave "
            "the limit out, or export with fewer or smaller sizes or a smaller batch"
        )
    if _MEMORY.search(text):
        match = _BYTES.search(text)
        amount = f" ({int(match[1] or match[2]) / 2**20:.0f} MiB were requested)" if match else ""
        return (
            f"Memory ran out{amount} for shapes up to {largest}: export with fewer or smaller sizes or a smaller "
            "batch, or build with a workspace limit, weight streaming or a lower optimisation level"
        )
    if _COMPILER_NEEDS_GPU.search(text) and (options.refit or options.strip):
        return (
            f"{library} compiles plans that are refitted or stripped only where there is a GPU: build on the machine "
            "that will run them, or without --refit and --strip"
        )
    if _NO_DRIVER.search(text) or _COMPILER_NEEDS_GPU.search(text):
        return "The build needs a GPU or its driver; `sdengine doctor` says what is missing"
    return "Try another optimisation level, or export in another precision (fp32 is compiled most widely)"


def _shortened(text: str, most: int = 600) -> str:
    text = re.sub(r"\s+", " ", text).strip().rstrip(".")
    return text if len(text) <= most else text[:most] + " [...]"
