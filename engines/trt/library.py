"""The two libraries that compile plans: TensorRT, and TensorRT for RTX.

They share names and signatures, so the module is chosen once and passed on as a value. Their differences are described
here and nowhere else.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import EngineUnavailableError, UsageError, nearest
from ..install_hint import install_hint

__all__ = ["LIBRARIES", "ONLY_TENSORRT", "Library", "library_of"]


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library that compiles plans.

    Attributes:
        engine: name of the engine in bundles and on the command line.
        module: what is imported.
        extra: the extra of this package that installs it.
        ahead_of_time: whether plans are built for named GPU generations, without a GPU; else they are built for the
            GPU that is here, by timing kernels on it.

    """

    engine: str
    module: str
    extra: str
    ahead_of_time: bool

    def unavailable(self) -> str | None:
        """Return why it cannot build here, or None."""
        if find_spec(self.module) is None:
            return f"{self.module} is not installed; {install_hint(self.extra)}"
        return None

    def load(self) -> Any:
        """Import it.

        Raises:
            EngineUnavailableError: it is not installed, or its shared libraries cannot be loaded.

        """
        reason = self.unavailable()
        if reason is not None:
            raise EngineUnavailableError(reason)
        try:
            return import_module(self.module)
        except (ImportError, OSError, RuntimeError) as error:
            raise EngineUnavailableError(f"{self.module} is installed but cannot be loaded: {error}") from error


LIBRARIES = {
    "tensorrt": Library(engine="tensorrt", module="tensorrt", extra="tensorrt", ahead_of_time=False),
    "tensorrt-rtx": Library(engine="tensorrt-rtx", module="tensorrt_rtx", extra="tensorrt-rtx", ahead_of_time=True),
}

ONLY_TENSORRT = {
    "timing_cache": "TensorRT-RTX times nothing while it builds; its timing cache does nothing since release 1.2",
    "hardware_compatible": "TensorRT-RTX takes a list of generations instead: targets",
    "version_compatible": "a plan of TensorRT-RTX is tied to the release that built it",
}
"""Build options that mean something to TensorRT alone, with the reason (release notes of TensorRT-RTX 1.2 to 1.7).

TensorRT cannot be installed where only PyPI is reachable, so tests cannot hold these calls against the real library:
the timing cache's ``create_timing_cache``, ``set_timing_cache``, ``get_timing_cache`` and ``serialize`` (they exist in
TensorRT-RTX and do nothing), ``HardwareCompatibilityLevel.AMPERE_PLUS`` and ``BuilderFlag.VERSION_COMPATIBLE`` (defined
by both; the latter with ``Runtime.engine_host_code_allowed``). The bindings of TensorRT 11.4 name all of them.

In the other direction these are TensorRT-RTX's alone, and code that serves both checks for them before using them:
``num_compute_capabilities`` and ``set_compute_capability``; ``BuilderFlag.REQUIRE_USER_ALLOCATION``;
``IRuntimeConfig.create_runtime_cache`` and ``dynamic_shapes_kernel_specialization_strategy`` (TensorRT 11.4 has an
``IRuntimeConfig`` without them).
"""


def library_of(engine: str) -> Library:
    """Return the library of an engine.

    Raises:
        UsageError: no library compiles plans for an engine of that name.

    """
    if engine not in LIBRARIES:
        raise UsageError(
            f"no plans are built for {engine!r}; they are for {', '.join(LIBRARIES)}{nearest(engine, LIBRARIES)}"
        )
    return LIBRARIES[engine]
