"""What is asked of the machine, and what others have published."""

import mmap
import os
from pathlib import Path

import pytest
from sdengine.benchmarks.bench.environment import clocks_now, environment_here
from sdengine.benchmarks.bench.figure import Absent
from sdengine.benchmarks.bench.memory_use import DeviceMemoryMonitor, peak_memory, resident_memory
from sdengine.benchmarks.bench.published import published_for

SDXL = 2_567_463_684
HD, SMALL = ((1024, 1024), 30, 1), ((512, 512), 30, 1)


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put another nvidia-smi first, as there may be none here."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_gpus_are_described_and_their_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        tmp_path,
        monkeypatch,
        f"""case "$1" in
  --query-gpu=name,driver_version,*) echo "NVIDIA L4, 570.1, 8.9, 23034, 2040, 2040, 6251, 72.00, Enabled, P0, 40" ;;
  --query-gpu=clocks.sm) echo 1980 ;;
  --query-gpu=memory.used) echo 5000 ;;
  --query-compute-apps=*) echo "1, 77"; echo "{os.getpid()}, 1000"; echo "{os.getpid()}, 48" ;;
esac""",
    )
    gpu = environment_here().gpus[0]
    assert (gpu["name"], gpu["driver_version"], gpu["clocks.sm"]) == ("NVIDIA L4", "570.1", "2040")
    assert clocks_now().gpu == [1980]
    device = DeviceMemoryMonitor()
    device.look()
    assert device.most == pytest.approx(1048 * 2**20 / 1e6)


def test_in_a_container_growth_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There nvidia-smi lists no processes."""
    used = tmp_path / "used"
    stand_in(tmp_path, monkeypatch, f'case "$1" in --query-gpu=memory.used) cat {used} ;; esac')
    used.write_text("1000\n200\n")
    device = DeviceMemoryMonitor()
    for held in ("1400\n200\n", "1900\n300\n", "1100\n200\n"):
        used.write_text(held)
        device.look()
    assert device.most == pytest.approx(1000 * 2**20 / 1e6)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Driver/library version mismatch'; exit 18", "Driver/library version mismatch"),
        ('case "$1" in --query-gpu=*) echo "[N/A]" ;; *) echo "$PPID, [N/A]" ;; esac', "does not report memory here"),
    ],
)
def test_unknown_device_memory_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    stand_in(tmp_path, monkeypatch, script)
    device = DeviceMemoryMonitor()
    device.look()
    assert isinstance(device.most, str)
    assert reason in device.most


def test_resident_memory_is_of_this_process() -> None:
    before, held = resident_memory(), b"\1" * 64_000_000
    after, peak = resident_memory(), peak_memory()
    assert isinstance(before, float) and isinstance(after, float) and isinstance(peak, float)
    assert len(held) / 1e6 * 0.9 < after - before
    assert peak >= after - 1


def test_published_figures_are_for_the_same_work() -> None:
    found = published_for("sdxl", SDXL, [HD], guided=True)
    assert isinstance(found, list)
    assert {f.gpu: f.value for f in found} == {"NVIDIA A10": 8160, "NVIDIA A100": 2742, "NVIDIA H100": 1471}
    assert all(f.url.startswith("https://") and f.source for f in found)
    twenty = published_for("sdxl", SDXL, [((1024, 1024), 20, 8), SMALL], guided=True)
    assert isinstance(twenty, list)
    assert [(f.gpu, f.unit, f.value) for f in twenty] == [("NVIDIA H100", "images/s", 2.26)]


@pytest.mark.parametrize(
    ("family", "parameters", "case", "guided", "reason"),
    [
        ("sdxl", 3_836_244, HD, True, "none for this model"),
        ("sd1", 859_520_964, HD, True, "none for this model"),
        ("sdxl", SDXL, SMALL, True, "none for these sizes and steps"),
        ("sdxl", SDXL, ((1024, 1024), 30, 4), True, "none for these sizes and steps"),
        ("sdxl", SDXL, HD, False, "none without guidance"),
    ],
)
def test_where_nothing_is_comparable_there_is_one_line(
    family: str, parameters: int, case: tuple[tuple[int, int], int, int], guided: bool, reason: str
) -> None:
    found = published_for(family, parameters, [case], guided=guided)
    assert isinstance(found, Absent)
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason


def test_what_is_reserved_and_not_used_is_not_resident() -> None:
    before = resident_memory(), peak_memory()
    with mmap.mmap(-1, 512_000_000):
        after = resident_memory(), peak_memory()
    for less, more in zip(before, after, strict=True):
        assert isinstance(less, float) and isinstance(more, float)
        assert more - less < 100
