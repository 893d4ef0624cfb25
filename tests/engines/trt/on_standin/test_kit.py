"""The acceptance kit's section about the driver layer holds on the stand-in, so that it works when it meets a GPU."""

import json
import shutil
from pathlib import Path

import pytest
from sdengine.engines.eager import device_engine as on_device

from ....bundles import bundle_of
from ....gpu.kit import on_device as section
from ....gpu.kit.record import Record
from ....gpu.kit.setting import Setting
from .torch_on_cpu import StandinModule, StandinStream

_NEEDS_A_GPU = {
    "torch sees the same bytes",
    "our kernels give what float64 gives",
    "torch waits for nothing inside a step",
}


def test_the_driver_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_device, "TorchStream", StandinStream)
    monkeypatch.setattr(on_device, "Module", StandinModule)
    shutil.copytree(bundle_of("sd1", controlnets=1, engines=["torch"]), tmp_path / "tiny" / "sd1")
    setting = Setting(
        out=tmp_path, work=tmp_path / "work", device="cuda:0", scale="tiny", tiny=tmp_path / "tiny", compile=False
    )
    record = Record(tmp_path, "device", seconds=3600)
    section.run(setting, record)
    lines = [json.loads(line) for line in (tmp_path / "device.jsonl").read_text().splitlines()]
    assert {line["skipped"] for line in lines if "skipped" in line} == _NEEDS_A_GPU
    checks = [line for line in lines if "check" in line]
    assert [line for line in checks if not line["holds"]] == []
    assert len(checks) > 30
