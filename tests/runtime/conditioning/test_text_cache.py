"""What a text encoder made of a prompt is remembered: exactly, within bounds, and out of the callers' reach."""

from typing import Any

import numpy as np
import pytest
from sdengine.runtime import Pipeline
from sdengine.runtime.conditioning.text_cache import CachedTextEncoder

from ...bundles import bundle_of

EXTRA = np.zeros((1, 4), np.float32)
SIZE: dict[str, Any] = {"height": 48, "width": 72, "num_inference_steps": 2, "seed": 3, "output_type": "np"}


class Counting:
    """An encoder that tells windows apart, and how many it has been given."""

    def __init__(self) -> None:
        self.windows: list[int] = []

    def __call__(self, ids: Any, masks: Any, layer: Any, extra: Any, /) -> Any:
        self.windows.append(len(ids))
        value = (ids * masks).sum(1) + 100 * layer[0] + 1000 * extra.sum()
        return np.repeat(value[:, None, None], 3, 1).astype(np.float32), value[:, None].astype(np.float32)


def _window(*ids: int) -> Any:
    return np.array(ids, np.int64)[:, None].repeat(3, 1)


def _encode(encoder: CachedTextEncoder, *ids: int, layer: int = 1, extra: Any = EXTRA, mask: int = 1) -> Any:
    windows = _window(*ids)
    return encoder(windows, np.full_like(windows, mask), np.array([layer]), extra)


def test_only_new_windows_are_run_and_come_back_in_order() -> None:
    count = Counting()
    encoder = CachedTextEncoder(count)
    _encode(encoder, 1, 2)
    hidden, pooled = _encode(encoder, 3, 2, 1, 4)
    assert count.windows == [2, 2]
    np.testing.assert_array_equal(pooled[:, 0], [109, 106, 103, 112])
    np.testing.assert_array_equal(hidden, Counting()(_window(3, 2, 1, 4), 1, np.array([1]), EXTRA)[0])


def test_everything_that_matters_is_in_the_key() -> None:
    count = Counting()
    encoder = CachedTextEncoder(count)
    other = EXTRA.copy()
    other[0, 0] = 1
    results = [
        _encode(encoder, 1),
        _encode(encoder, 1, layer=2),
        _encode(encoder, 1, extra=other),
        _encode(encoder, 1, mask=0),
    ]
    assert len({float(pooled[0, 0]) for _, pooled in results}) == len(count.windows) == 4


def test_callers_cannot_change_what_is_remembered() -> None:
    encoder = CachedTextEncoder(Counting())
    for _ in range(2):
        hidden, pooled = _encode(encoder, 1)
        assert (hidden[0, 0, 0], pooled[0, 0]) == (103, 103)
        hidden[:], pooled[:] = 0, 0


@pytest.mark.parametrize("bounds", [{"entries": 2}, {"limit": 2 * 16 + 1}])
def test_the_least_recently_used_is_forgotten(bounds: dict[str, int]) -> None:
    count = Counting()
    encoder = CachedTextEncoder(count, **bounds)
    for ids in (1, 2, 1, 3, 1, 2):  # a window has 16 bytes; 2 goes when 3 comes
        _encode(encoder, ids)
    assert count.windows == [1, 1, 1, 1]
    assert encoder._bytes == 2 * 16


def test_what_is_not_finite_is_not_remembered() -> None:
    results = iter([np.nan, 1.0])

    def run(ids: Any, masks: Any, layer: Any, extra: Any, /) -> Any:
        value = next(results)
        return np.full((1, 3, 1), value, np.float32), np.full((1, 1), value, np.float32)

    encoder = CachedTextEncoder(run)
    assert np.isnan(_encode(encoder, 1)[0]).all()
    assert np.isfinite(_encode(encoder, 1)[0]).all()


def test_a_prompt_drawn_again_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pipeline.load(bundle_of("sdxl"), engine="onnxruntime", precision="fp32") as pipe:
        ran: list[str] = []
        real = pipe.components.run

        def watched(name: str, *args: Any, **options: Any) -> Any:
            ran.append(name)
            return real(name, *args, **options)

        monkeypatch.setattr(pipe.components, "run", watched)
        first = pipe("a cat", negative_prompt="rain", **SIZE).images[0]
        encoders = [name for name in ran if name.startswith("text_encoder")]
        assert set(encoders) == {"text_encoder", "text_encoder_2"}
        ran.clear()
        np.testing.assert_array_equal(pipe("a cat", negative_prompt="rain", **SIZE).images[0], first)
        assert not [name for name in ran if name.startswith("text_encoder")]
        pipe("a dog", negative_prompt="rain", **SIZE)
        assert [name for name in ran if name.startswith("text_encoder")] == ["text_encoder", "text_encoder_2"]
