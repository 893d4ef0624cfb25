"""Where a pipeline runs and with how much memory, by the names of diffusers' methods; part of every pipeline."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ...engines.cuda.gpu import no_gpu
from ...engines.errors import UsageError, nearest
from .opening import Opening, check_device, engine_for
from .parts import PartOf
from .say import note
from .torch_values import precision_of

__all__ = ["Placement"]

_TO = ("device", "torch_device", "dtype", "torch_dtype", "silence_dtype_warnings")


class Placement:
    """Device, precision, offloading, tiles, and closing."""

    _opening: Opening

    def to(self, *arguments: Any, **named: Any) -> Self:
        """Say where the pipeline runs, in what precision, or both; as torch's and diffusers' ``to``.

        Raises:
            UsageError: engines do not run there, or not in that type.
            EngineUnavailableError: that device is not here.

        """
        for name in named:
            if name not in _TO:
                raise UsageError(f"to() has no argument {name!r}{nearest(name, _TO)}")
        device = named.get("torch_device", named.get("device"))
        dtype = named.get("torch_dtype", named.get("dtype"))
        for argument in arguments:
            text = str(argument)
            if text.startswith("torch.") or text in ("float32", "float16", "bfloat16"):
                dtype = argument
            else:
                device = argument
        changes: dict[str, Any] = {}
        if device is not None:
            check_device(str(device))
            changes["device"] = str(device)
        if dtype is not None:
            changes["precision"] = precision_of(dtype)
        self._check_engine({**vars(self._opening.options), **changes})
        self._opening.change(**changes)
        return self

    def _check_engine(self, options: Mapping[str, Any]) -> None:
        if not self._opening.source.is_bundle:
            engine_for(options["device"] or "cpu", options["precision"] or "fp32", options["engine"])

    def cuda(self) -> Self:
        """Run on the first GPU."""
        return self.to("cuda")

    def cpu(self) -> Self:
        """Run on the CPU."""
        return self.to("cpu")

    @property
    def device(self) -> Any:
        """The device of torch, where torch is here; else its name."""
        return self._opening.device_value

    @property
    def dtype(self) -> Any:
        """The type of the precision, where torch is here; else its name."""
        return self._opening.dtype

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Keep one component open at a time, on a GPU where there is one."""
        chosen = str(device) if device is not None else "cuda" if gpu_id is None else f"cuda:{gpu_id}"
        if (reason := no_gpu()) is not None:
            note(f"enable_model_cpu_offload: one component is open at a time, on the CPU: {reason}")
            chosen = "cpu"
        self._opening.change(device=chosen, low_memory=True)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Do the same as :meth:`enable_model_cpu_offload`: a component is the least that can be open."""
        self.enable_model_cpu_offload(gpu_id, device)

    def enable_vae_tiling(self) -> None:
        """Decode and encode images in tiles, as ``pipe.vae.enable_tiling()``."""
        PartOf(self._opening, "vae").enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decode and encode images as a whole."""
        PartOf(self._opening, "vae").disable_tiling()

    def close(self) -> None:
        """Release the engines; the next call opens them again."""
        self._opening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
