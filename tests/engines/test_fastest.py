"""``auto`` takes the engine that is the fastest here: timed once, remembered until something changes."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sdengine.engines import fastest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import EngineError, UsageError
from sdengine.engines.fastest import auto_order
from sdengine.engines.opening_options import OpeningOptions
from sdengine.engines.registry import ENGINES, default_precision, exported_first, open_engine
from sdengine.runtime import Pipeline

from ..bundles import bundle_of


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path))
    monkeypatch.delenv("SDENGINE_AUTO")
    return Bundle(bundle_of("sd1"))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let OpenVINO be the faster one, whichever is; return the engines that were timed."""
    done: list[str] = []

    def milliseconds(bundle: Bundle, name: str, *_: object) -> float:
        done.append(name)
        return {"openvino": 1.0, "onnxruntime": 2.0}[name]

    monkeypatch.setattr(fastest, "_milliseconds", milliseconds)
    return done


def order_of(bundle: Bundle, **options: int) -> fastest.AutoOrder:
    return auto_order(bundle, precision=None, options=OpeningOptions(**options))


def test_the_fastest_goes_first_and_is_remembered(bundle: Bundle, timed: list[str]) -> None:
    assert bundle.manifest.engines == ["onnxruntime"]
    for _ in range(2):
        order = order_of(bundle)
        assert order.names[:2] == ("openvino", "onnxruntime")
        assert {*order.names} == {*ENGINES}
        assert order.milliseconds == {"openvino": 1.0, "onnxruntime": 2.0}
    assert timed == ["onnxruntime", "openvino"]
    order_of(bundle, threads=1)
    assert len(timed) == 4, "other threads, other times"


def test_the_result_says_what_auto_went_by(bundle: Bundle, timed: list[str]) -> None:
    with Pipeline.load(bundle.path) as pipe:
        result = pipe("a cat", num_inference_steps=1, seed=1)
    assert {*result.engines.values()} == {"openvino"}
    assert result.auto_ms == {"openvino": 1.0, "onnxruntime": 2.0}
    with Pipeline.load(bundle.path, engine="onnxruntime") as pipe:
        assert pipe("a cat", num_inference_steps=1, seed=1).auto_ms == {}


def test_engines_are_really_timed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "_SECONDS", 0.0)
    order = order_of(bundle)
    assert {*order.milliseconds} == {"openvino", "onnxruntime"}
    assert 0 < order.milliseconds[order.names[0]] <= order.milliseconds[order.names[1]]


def test_which_engine_is_the_fastest_does_not_decide_the_precision(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdengine.engines.ov.openvino_cpu.preferred", lambda graphs, device: "bf16")
    for_openvino = Bundle(bundle_of("sd1", engines=["openvino"]))
    for one, named, precision in ((bundle, False, "fp32"), (bundle, True, "bf16"), (for_openvino, False, "bf16")):
        assert default_precision(one, "denoiser", "openvino", device=None, named=named) == precision
    with closing(open_engine(bundle, "denoiser", order=["openvino"]).engine) as engine:
        assert engine.precision == "fp32"


def test_a_gpu_goes_before_all(bundle: Bundle, timed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "_DRIVERS", ("/dev/null",))
    monkeypatch.setattr(fastest, "no_gpu", lambda: None)
    monkeypatch.setattr("sdengine.engines.eager.finds_gpu", lambda: True)
    assert order_of(bundle).names[0] == "torch"
    monkeypatch.setattr(fastest, "_version", {"onnxruntime-gpu": "1"}.get)
    assert order_of(bundle).names[0] == "onnxruntime-cuda"
    assert not timed
    on_cpu = auto_order(bundle, precision=None, options=OpeningOptions(device="cpu"))
    assert on_cpu.names[0] == "openvino"


def _fails(*_: object) -> float:
    raise EngineError("it cannot be opened")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("exported", lambda patch: patch.setenv("SDENGINE_AUTO", "exported")),
        ("large", lambda patch: patch.setattr(fastest, "free_host_memory", lambda: 1000)),
        ("alone", lambda patch: patch.setattr("sdengine.engines.ov.openvino_cpu.unavailable", lambda: "not here")),
        ("failing", lambda patch: patch.setattr(fastest, "_milliseconds", _fails)),
    ],
)
def test_otherwise_what_was_exported_for_goes_first(
    bundle: Bundle, timed: list[str], monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[..., None]
) -> None:
    change(monkeypatch)
    order = order_of(bundle)
    assert [*order.names] == exported_first(bundle)
    assert (order.milliseconds, timed) == ({}, [])
    assert (order.note is not None) is (name == "large")


def test_what_was_remembered_may_be_damaged_or_unusable(
    bundle: Bundle, timed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_of(bundle)
    [file] = (tmp_path / "fastest").iterdir()
    file.write_text("{")
    assert order_of(bundle).names[0] == "openvino"
    file.chmod(0o666)
    assert order_of(bundle).names[0] == "openvino"
    assert len(timed) == 6
    monkeypatch.setenv("SDENGINE_AUTO", "fast")
    with pytest.raises(UsageError, match="neither measured nor exported"):
        order_of(bundle)
