"""Plans are compared with torch in their own profiles; why one is not is told."""

from pathlib import Path

import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import ExportError
from sdengine.engines.trt import verified
from sdengine.engines.trt.build_plans import BuiltPlan
from sdengine.engines.trt.plan_record import read_record
from sdengine.engines.trt.verified import verify_plans

from .plans import with_plans


def plans_of(path: Path, *components: str) -> list[BuiltPlan]:
    bundle = Bundle(path)
    built = [b for b in bundle.manifest.built if b.component in components]
    return [BuiltPlan(file=b.file, record=read_record(bundle, b.file), reused=False) for b in built]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return with_plans("sd1", tmp_path, sizes=((64, 64), (64, 96)))


def test_each_profile_is_compared_and_written_down(path: Path) -> None:
    said: list[str] = []
    for _ in range(2):  # the second time replaces the results of the first
        verify_plans(Bundle(path), plans_of(path, "vae_decoder", "conditioner"), "full", said.append)
    found = Bundle(path).manifest.verification
    assert [result.component for result in found] == ["conditioner"] * 3 + ["vae_decoder"] * 3
    assert {result.axes["w"] for result in found if result.component == "vae_decoder"} == {8, 12}
    assert all(result.engine == "tensorrt" and result.relative_error < 1e-4 for result in found)
    assert len(said) == 12 and "conditioner: differs from torch by" in said[0]
    verify_plans(Bundle(path), plans_of(path, "conditioner"), "fast", said.append)
    assert [result.component for result in Bundle(path).manifest.verification].count("conditioner") == 1


def test_a_difference_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "PLAN_TOLERANCES", {"fp32": -1.0})
    with pytest.raises(ExportError, match="conditioner in fp32 on tensorrt differs from torch"):
        verify_plans(Bundle(path), plans_of(path, "conditioner"), "fast", lambda _: None)
    assert Bundle(path).manifest.verification == []


def test_a_plan_for_elsewhere_is_not_compared(tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path, target="sm86-NVIDIA-A10")
    said: list[str] = []
    verify_plans(Bundle(path), plans_of(path, "conditioner"), "fast", said.append)
    assert len(said) == 1 and said[0].startswith("conditioner: not verified: conditioner: built for sm86-NVIDIA-A10")
