"""Makes execution contexts, and keeps the kernels that TensorRT-RTX compiles as they first run.

A plan of TensorRT-RTX is finished on the GPU it runs on: kernels are compiled when a context meets their shapes. The
cache of them is kept beside the plan, one for each GPU model, under a name that holds its SHA-256: it is written aside
and renamed, and a file that is not what its name says is never loaded. It is not in the manifest, so that a process
that ends does not change the bundle under one that is just opening it.
"""

import hashlib
from pathlib import Path
from typing import Any

from ..cuda.gpu import Gpu
from ..whole_file import write_whole

__all__ = ["Contexts"]


class Contexts:
    """The one place where contexts of an open plan are made. The caller holds the device.

    Args:
        module: the library.
        engine: the deserialised plan.
        plan: its file.
        gpu: where it runs.

    Attributes:
        notes: what could not be loaded or kept, and why; the plan runs all the same.

    """

    def __init__(self, module: Any, engine: Any, plan: Path, gpu: Gpu) -> None:
        self.notes: list[str] = []
        self._engine = engine
        self._strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._stem = plan.with_name(f"{plan.stem}.{gpu.generation}-{gpu.model}")
        self._config: Any = None
        self._cache: Any = None
        self._kept: Path | None = None
        if hasattr(getattr(module, "IRuntimeConfig", None), "create_runtime_cache"):
            self._configure(module)

    def _configure(self, module: Any) -> None:
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(self._strategy)
        # A captured launch keeps the kernels it was captured with. By default those for the very shapes are compiled in
        # the background while general ones run, and it would be the general ones that are captured.
        strategies = module.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self._config.create_runtime_cache()
        for file in sorted(self._stem.parent.glob(f"{self._stem.name}.*.kernels")):
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != file.name.split(".")[-2]:
                self.notes.append(f"{file.name} was changed; kernels are compiled anew")
            elif not self._cache.deserialize(data):
                self.notes.append(f"{file.name} is of another driver or version; kernels are compiled anew")
            else:
                self._kept = file
                break
        self._config.set_runtime_cache(self._cache)

    def new(self) -> Any:
        """Return a context whose scratch memory the caller provides; None where the library cannot make one."""
        return self._engine.create_execution_context(self._strategy if self._config is None else self._config)

    def keep(self) -> None:
        """Write the kernels that were compiled since, if any; a bundle that cannot be written to stays as it is."""
        if self._cache is None:
            return
        data = bytes(memoryview(self._cache.serialize()))
        file = self._stem.with_name(f"{self._stem.name}.{hashlib.sha256(data).hexdigest()}.kernels")
        if file == self._kept:
            return
        try:
            with write_whole(file) as partial:
                partial.write_bytes(data)
            for other in self._stem.parent.glob(f"{self._stem.name}.*.kernels"):
                if other != file:
                    other.unlink(missing_ok=True)
        except OSError as error:
            self.notes.append(f"kernels are not kept: {error}")
        else:
            self._kept = file
