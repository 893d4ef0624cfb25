"""The machine and the software that affect the figures."""

import os
import platform
from pathlib import Path

import msgspec

from ...engines.installed_packages import installed_packages
from .nvidia_smi import nvidia_smi

__all__ = ["Clocks", "Cpu", "Environment", "clocks_now", "environment_here"]

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MALLOC_ARENA_MAX",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_MODULE_LOADING",
    "NVIDIA_TF32_OVERRIDE",
    "TOKENIZERS_PARALLELISM",
)
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_bf16", "amx_int8")
_GPU_FIELDS = (
    "name",
    "driver_version",
    "compute_cap",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "persistence_mode",
    "pstate",
    "temperature.gpu",
)


class Cpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The processor, as far as the system reports it.

    Attributes:
        model: its name.
        cores: logical cores of the machine.
        usable: cores that this process may use.
        quota: cores' worth of time that its control group may use; None is no limit.
        features: instructions that matter here.
        mhz: clock of each core when this was written.
        max_mhz: highest clock; None where the system does not report it.
        governor: what sets the clock; None where the system does not report it.
        load: average number of running processes over the last minute, before measuring.
        memory_mb: of the machine.

    """

    model: str
    cores: int
    usable: int
    quota: float | None
    features: list[str]
    mhz: list[float]
    max_mhz: float | None
    governor: str | None
    load: float | None
    memory_mb: float | None


class Clocks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clocks at one moment, in MHz; empty where the system does not report them.

    Attributes:
        cpu: of each core.
        gpu: of the multiprocessors of each NVIDIA GPU.

    """

    cpu: list[float]
    gpu: list[float]


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machine and software.

    Attributes:
        system: operating system and kernel.
        python: version.
        cpu: the processor.
        gpus: what nvidia-smi reports of each.
        packages: versions of what is installed.
        variables: environment variables that change speed.

    """

    system: str
    python: str
    cpu: Cpu
    gpus: list[dict[str, str]]
    packages: dict[str, str]
    variables: dict[str, str]


def environment_here() -> Environment:
    """Describe this machine."""
    rows = nvidia_smi(f"--query-gpu={','.join(_GPU_FIELDS)}")
    gpus = [] if isinstance(rows, str) else [dict(zip(_GPU_FIELDS, row, strict=False)) for row in rows]
    return Environment(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu=_cpu(),
        gpus=gpus,
        packages=installed_packages(),
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def clocks_now() -> Clocks:
    """Read the clocks: under load they differ."""
    rows = nvidia_smi("--query-gpu=clocks.sm")
    cells = [] if isinstance(rows, str) else [row[0] for row in rows]
    return Clocks(cpu=_cpu_mhz(), gpu=[float(cell) for cell in cells if cell.replace(".", "").isdigit()])


def _cpu_mhz() -> list[float]:
    return [float(value) for value in _named_values(Path("/proc/cpuinfo")).get("cpu MHz", [])]


def _cpu() -> Cpu:
    info = _named_values(Path("/proc/cpuinfo"))
    frequency = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    max_khz = _read(frequency / "cpuinfo_max_freq")
    flags = set((info.get("flags") or info.get("Features") or [""])[0].split())
    memory = _named_values(Path("/proc/meminfo")).get("MemTotal", [])
    cores = os.cpu_count() or 1
    return Cpu(
        model=(info.get("model name") or [platform.processor() or platform.machine()])[0],
        cores=cores,
        usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        quota=_quota(),
        features=[feature for feature in _FEATURES if feature in flags],
        mhz=_cpu_mhz(),
        max_mhz=int(max_khz) / 1e3 if max_khz else None,
        governor=_read(frequency / "scaling_governor"),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory_mb=int(memory[0].split()[0]) * 1024 / 1e6 if memory else None,
    )


def _named_values(file: Path) -> dict[str, list[str]]:
    """Read ``name: value`` lines; a name may come once for each core."""
    values: dict[str, list[str]] = {}
    for line in (_read(file) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            values.setdefault(name.strip(), []).append(value.strip())
    return values


def _quota() -> float | None:
    """Return the limit of this process's control group (version 2), in cores."""
    group = (_read(Path("/proc/self/cgroup")) or "").rpartition("::")[2]
    limit, _, period = (_read(Path("/sys/fs/cgroup") / group.lstrip("/") / "cpu.max") or "max").partition(" ")
    return None if limit == "max" or not period else int(limit) / int(period)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None  # another system than Linux, or one that does not report it
