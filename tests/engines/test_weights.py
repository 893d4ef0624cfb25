"""Changed weights: on every engine A, B, A gives A, B, A; what was made of one is never used for the other."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.compiled_cache import CompiledCache
from sdengine.engines.engine import Array, run
from sdengine.engines.errors import UsageError
from sdengine.engines.parity import sample
from sdengine.engines.registry import ENGINES, open_engine
from sdengine.engines.weights import ComputedOverlay, changed_tensors
from sdengine.runtime import Pipeline
from threadpoolctl import threadpool_info, threadpool_limits

from ..bundles import bundle_of

CHANGED = ("conv_out.weight", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight")


def _overlay(bundle: Bundle, factor: float) -> dict[str, Array]:
    stored = load_file(bundle.file(bundle.manifest.networks["unet"].weights))
    return {name: np.asarray(stored[name] * np.float32(factor), np.float32) for name in CHANGED}


def _outputs(bundle: Bundle, engine: str) -> Array:
    opened = open_engine(bundle, "denoiser", engine=engine, precision="fp32").engine
    try:
        _, inputs = sample(opened.spec, 0)
        return run(opened, inputs)["next_state"]
    finally:
        opened.close()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_there_and_back(engine: str) -> None:
    if reason := ENGINES[engine].module.unavailable():
        pytest.skip(reason)
    plain = Bundle(bundle_of("sd1"))
    changed = plain.with_changes({"unet": _overlay(plain, 1.7)})
    first, other = _outputs(plain, engine), _outputs(changed, engine)
    for _ in range(2):  # the second time from what was cached
        assert np.array_equal(_outputs(plain, engine), first)
        assert np.array_equal(_outputs(changed, engine), other)
    assert not np.allclose(first, other, atol=1e-2)
    np.testing.assert_allclose(other, _outputs(changed, "torch"), atol=1e-4 * float(np.abs(other).max()))
    again = changed.with_changes({"unet": _overlay(plain, 1.0)})
    assert np.allclose(_outputs(again, engine), first, atol=1e-5), "over what was exported, not over the changes"
    assert np.array_equal(_outputs(changed.with_changes({}), engine), first)


def test_two_weights_are_open_at_once() -> None:
    plain = Bundle(bundle_of("sd1"))
    changed = plain.with_changes({"unet": _overlay(plain, 1.7)})
    engines = [open_engine(b, "denoiser", engine="torch", precision="fp32").engine for b in (plain, changed, plain)]
    _, inputs = sample(engines[0].spec, 0)
    a, b, c = (run(engine, inputs)["next_state"] for engine in engines)
    assert np.array_equal(a, c) and not np.array_equal(a, b)


def test_the_identity_is_in_the_keys() -> None:
    plain = Bundle(bundle_of("sd1"))
    bundles = [plain, *(plain.with_changes({"unet": _overlay(plain, f)}) for f in (1.5, 1.6, 1.5))]
    identities = [bundle.weights("unet").identity for bundle in bundles]
    assert len(set(identities)) == 3 and identities[1] == identities[3]
    graph = plain.graph("denoiser", "fp32").file
    files = [CompiledCache(bundle, "denoiser", graph, engine="openvino", settings={}).file for bundle in bundles]
    assert len(set(files)) == 3 and files[1] == files[3]
    vae = plain.with_changes({"unet": _overlay(plain, 1.5)}).weights("vae")
    assert vae.identity == plain.weights("vae").identity, "other networks keep theirs"


def test_samples_of_other_weights_share_no_batch() -> None:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as pipe:
        settings: dict[str, Any] = {"prompt": "a", "height": 48, "width": 48, "seed": 1}
        [sample_of_plain] = pipe.prepare(**settings)
        before = sample_of_plain.weights
        bundle = pipe.bundle.with_changes({"unet": _overlay(pipe.bundle, 1.5)})
        assert bundle.weights("unet").identity not in before
        with pipe.batch(sample_of_plain) as batch:
            sample_of_plain.weights = (bundle.weights("unet").identity,)
            with pytest.raises(UsageError, match="the weights of this sample differ"):
                batch.put(sample_of_plain)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"unet": {"conv_outt.weight": np.zeros(3)}}, "no tensor 'conv_outt.weight'; did you mean 'conv_out.weight'"),
        (
            {"unet": {"conv_out.bias": np.zeros(3, np.float32)}},
            r"conv_out.bias is float32 \[4\], and cannot be replaced by float32 \[3\]",
        ),
        (
            {"unet": {"conv_out.bias": np.zeros(4, np.float16)}},
            r"conv_out.bias is float32 \[4\], and cannot be replaced by float16 \[4\]",
        ),
        ({"unett": {}}, "there is no network 'unett'; did you mean 'unet'"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Bundle(bundle_of("sd1")).with_changes(changes)


def test_products_of_one_thread_each_while_weights_are_computed() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    if not threads():
        pytest.skip("numpy has a BLAS here whose threads cannot be counted")
    seen: list[int] = []
    overlay = ComputedOverlay("", ["a", "b", "c"], lambda name: np.asarray(seen.extend(threads())))
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        assert len(list(changed_tensors(overlay, ["a", "b", "c"]))) == 3
        assert set(seen) == {1} and threads() == before


def test_products_stay_on_one_thread_until_the_last_component_is_opened() -> None:
    """On several threads they are rounded otherwise: the same LoRAs would give other weights."""

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    changes = {name: np.zeros(1, np.float32) for name in "abcdef"}
    with threadpool_limits(limits=2, user_api="blas"):
        first, second = (changed_tensors(changes, changes) for _ in range(2))
        next(first), next(second)
        assert len(list(first)) == 5
        assert threads() == {1}
        assert len(list(second)) == 5
        assert threads() == {2}
