"""Falling back is reported, and refused where an engine was named."""

import pytest
from sdengine.engines import registry as ladder
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import BundleError, EngineError, EngineUnavailableError, UsageError
from sdengine.engines.registry import open_engine

from ..bundles import bundle_of


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(bundle_of("sd1"))


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(ladder.ENGINES[name].module, "unavailable", lambda name=name: f"{name} is not here")


def test_a_named_engine_that_cannot_run_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "onnxruntime")
    with pytest.raises(EngineUnavailableError, match="onnxruntime is not here"):
        open_engine(bundle, "conditioner", engine="onnxruntime")


def test_an_allowed_fallback_is_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, *(name for name in ladder.ENGINES if name != "torch"))
    opened = open_engine(bundle, "conditioner", engine="onnxruntime", fallback="allow")
    assert opened.engine.name == "torch"
    assert opened.fallbacks[0].requested == "onnxruntime"
    assert opened.fallbacks[0].skipped == "onnxruntime"
    assert opened.fallbacks[0].reason == "onnxruntime is not here"
    opened.engine.close()


def test_nothing_can_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, *ladder.ENGINES)
    with pytest.raises(EngineError, match=r"no engine can run conditioner: .*torch is not here"):
        open_engine(bundle, "conditioner")


def test_unknown_engine(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        open_engine(bundle, "conditioner", engine="onxruntime")


def test_a_precision_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="holds conditioner in fp32, not in fp16"):
        open_engine(bundle, "conditioner", engine="onnxruntime", precision="fp16").engine.close()


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_a_closed_engine_says_so(bundle: Bundle, engine: str) -> None:
    opened = open_engine(bundle, "conditioner", engine=engine).engine
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.prepare({}, {})
