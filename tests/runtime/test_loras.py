"""LoRAs over the weights of an open pipeline: diffusers' images, nothing left of earlier ones, all or nothing."""

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sdengine.engines.errors import CheckpointError, EngineError, LoraError, NonFiniteError, UsageError
from sdengine.engines.registry import ENGINES
from sdengine.runtime import Pipeline, open_engines

from ..bundles import bundle_of
from ..engines.lora.networks import kohya_lora
from .parity.oracle import oracle, psnr, their_warnings

QUICK: dict[str, Any] = {"num_inference_steps": 3, "height": 32, "width": 32, "seed": 1, "output_type": "np"}
F32 = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a`` is for both networks, ``b`` for the UNet alone, ``words`` brings a word."""
    folder = tmp_path_factory.mktemp("loras")
    kohya_lora("sd1", folder / "a.safetensors", seed=0, size=0.15)
    kohya_lora("sd1", folder / "b.safetensors", seed=1, size=0.15, network_names=("unet",), ldm=True)
    words = load_file(folder / "b.safetensors") | {"bundle_emb.zzy.clip_l": np.full((1, 24), 0.5, np.float32)}
    save_file(words, folder / "words.safetensors")
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Iterator[Pipeline]:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1, lora_folder=folder) as pipeline:
        yield pipeline


@pytest.fixture(autouse=True)
def none_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "pipe" in request.fixturenames:
        request.getfixturevalue("pipe").set_loras([])


def drawn(pipe: Pipeline, prompt: str = "a cat", **settings: Any) -> F32:
    return np.asarray(pipe(prompt, **{**QUICK, **settings}).images)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_there_and_back(engine: str, folder: Path) -> None:
    if reason := ENGINES[engine].module.unavailable():
        pytest.skip(reason)
    with Pipeline.load(bundle_of("sd1"), engine=engine, precision="fp32", threads=1, lora_folder=folder) as pipe:
        sets: list[Any] = [[], ["a"], [("a", 0.5), ("b", -0.7)], [("a", 0.0)]]
        images = {}
        # OpenVINO compiles again for each, which takes ten times as long.
        for i in (1, 3, 1, 0) if engine == "openvino" else (0, 1, 2, 1, 0, 3, 2, 0):
            pipe.set_loras(sets[i])
            image = drawn(pipe)
            assert np.array_equal(images.setdefault(i, image), image), i
    assert np.array_equal(images[0], images[3])
    assert psnr(images[0], images[1]) < 40


def test_as_diffusers(pipe: Pipeline, folder: Path) -> None:
    theirs = oracle("sd1", "text")
    blocks = {"unet": {"down": 0.5, "mid": 1.2, "up": {"block_1": [0.1, 0.7]}}, "text_encoder": 0.4}
    settings = {name: value for name, value in QUICK.items() if name != "seed"}

    def same(ours: F32, **more: Any) -> None:
        expected = theirs("a cat", generator=torch.Generator().manual_seed(1), **settings, **more).images
        assert psnr(ours, expected) > 55

    with their_warnings():
        theirs.load_lora_weights(str(folder / "a.safetensors"), adapter_name="a")
        theirs.unet.set_submodule("conv_in", theirs.unet.conv_in.base_layer)  # it does not know its block
        with_blocks = load_file(folder / "a.safetensors")
        keep = {k: v for k, v in with_blocks.items() if "_conv_in." not in k}
        keep = {k: v for k, v in keep.items() if "_conv_out." not in k and "_time_embedding_" not in k}
        for name in ("conv_out", "time_embedding.linear_1", "time_embedding.linear_2"):
            theirs.unet.set_submodule(name, theirs.unet.get_submodule(name).base_layer)
        save_file(keep, folder / "inner.safetensors")
        pipe.set_loras([("inner", 0.8)])
        theirs.set_adapters(["a"], [0.8])
        same(drawn(pipe))
        same(drawn(pipe, cross_attention_kwargs={"scale": 0.5}), cross_attention_kwargs={"scale": 0.5})
        pipe.set_loras([("inner", blocks)])
        theirs.set_adapters(["a"], [blocks])
        same(drawn(pipe))
        theirs.unload_lora_weights()
    (folder / "inner.safetensors").unlink()


def test_a_call_may_name_its_own(pipe: Pipeline) -> None:
    """By argument or by tag; calls that name none go back to the pipeline's."""
    plain = drawn(pipe)
    pipe.set_loras(["b"])
    usual = drawn(pipe)
    own = pipe("a cat", loras=[("a", 0.5)], **QUICK)
    assert [(lora["name"], lora["strength"]) for lora in own.loras] == [("a", 0.5)]
    assert own.loras[0]["weights"]["text_encoder"] == 12 and own.loras[0]["kinds"] == ["LoRA"]
    assert own.timings_ms.loras > 0 and own.settings["loras"] == list(own.loras)
    assert np.array_equal(drawn(pipe, loras=[]), plain)
    assert np.array_equal(drawn(pipe), usual)
    tagged = pipe("a <lora:a:0.5>cat", loras=[], **QUICK)
    assert np.array_equal(tagged.images, own.images) and not tagged.warnings
    both = drawn(pipe, "a cat <lora:a:te=0.2:unet=0.5>")
    assert np.array_equal(
        both, drawn(pipe, loras=["b", ("a", {"unet": 0.5, "text_encoder": 0.2, "text_encoder_2": 0.2})])
    )
    assert np.array_equal(drawn(pipe), usual)


def test_what_has_no_effect_is_said(folder: Path, tmp_path: Path) -> None:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as pipe:
        scaled = pipe("a cat", cross_attention_kwargs={"scale": 0.5}, **QUICK)
        assert scaled.warnings == ("cross_attention_kwargs: scale has no effect, as there are no LoRAs",)
        stored = load_file(folder / "b.safetensors")
        del stored["lora_unet_input_blocks_1_1_proj_in.alpha"]
        save_file(stored, tmp_path / "mixed.safetensors")
        mixed = pipe("a cat", loras=[tmp_path / "mixed.safetensors"], **QUICK)
        assert len(mixed.warnings) == 1 and "1 of its modules have no alpha" in mixed.warnings[0]
        assert any("<lora:a:0.5>" in warning for warning in pipe("a <lora:a:0.5>cat", **QUICK).warnings)


def test_words_that_a_lora_brings(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    pipe.set_loras([("words", 0.0)])
    with_word, text = drawn(pipe, "a zzy"), drawn(pipe)
    pipe.set_loras([])
    assert np.array_equal(drawn(pipe), text)
    save_file({"zzy": np.full((1, 24), 0.5, np.float32)}, tmp_path / "zzy.safetensors")
    inversions = [tmp_path / "zzy.safetensors"]
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1, textual_inversions=inversions) as other:
        assert np.array_equal(drawn(other, "a zzy"), with_word)


def test_where_it_fails_everything_is_as_before(
    pipe: Pipeline, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.set_loras(["a"])
    before, components = drawn(pipe), pipe.components
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((folder / "a.safetensors").read_bytes()[:5000])
    sdxl = kohya_lora("sdxl", tmp_path / "sdxl.safetensors")
    for bad, error in ((torn, CheckpointError), (sdxl, UsageError), (tmp_path / "none", UsageError), ("c", UsageError)):
        with pytest.raises(error):
            pipe.set_loras(["b", bad])
        with pytest.raises(error):
            pipe("a cat", loras=[bad], **QUICK)
    with pytest.raises(UsageError, match=r"there is no LoRA 'aa' in .*did you mean 'a'"):
        pipe("<lora:aa>", **QUICK)
    with pytest.raises(UsageError, match="prompts of one call"):
        pipe(["<lora:a> one", "two"], **QUICK)
    opened = open_engines.open_engine

    def refuses(bundle: Any, name: str, **options: Any) -> Any:
        if name == "denoiser":
            raise EngineError("no memory")
        return opened(bundle, name, **options)

    monkeypatch.setattr(open_engines, "open_engine", refuses)
    with pytest.raises(EngineError, match="no memory"):
        pipe.set_loras(["b"])
    monkeypatch.undo()
    assert pipe.components is components and [lora["name"] for lora in pipe.loras] == ["a"]
    assert np.array_equal(drawn(pipe), before)


def test_calls_and_batches_end_with_what_they_began_with(pipe: Pipeline) -> None:
    plain = drawn(pipe)
    settings = {name: value for name, value in QUICK.items() if name != "output_type"}
    [alone] = pipe.prepare("a cat", **settings)
    for _ in pipe.denoise([alone]):
        pass
    first = pipe.components
    [inside, waiting] = [pipe.prepare("a cat", **settings)[0] for _ in range(2)]
    batch = pipe.batch(inside, slots=1)
    batch.put(inside)
    batch.step()
    seen: list[F32] = []
    begun, go_on = threading.Event(), threading.Event()

    def wait(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(60)
        return {}

    thread = threading.Thread(target=lambda: seen.append(drawn(pipe, callback_on_step_end=wait)))
    thread.start()
    assert begun.wait(60)
    pipe.set_loras(["a"])
    changed = drawn(pipe)
    assert first.open, "still in use"
    go_on.set()
    thread.join(60)
    while batch.active:
        batch.step()
    assert np.array_equal(inside.latent, alone.latent) and np.array_equal(seen[0], plain)
    pipe.decode([inside])
    assert first.open
    batch.close()
    assert not first.open, "nobody uses it any more"
    with pytest.raises(UsageError, match="other weights"):
        pipe.batch(waiting)
    with pytest.raises(UsageError, match="other weights"):
        list(pipe.denoise([waiting]))
    assert psnr(changed, plain) < 40
    assert not set(pipe.components.open) - {"text_encoder", "conditioner", "denoiser", "vae_decoder"}


def test_what_is_not_changed_is_not_opened_again(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(pipe)
    opened: list[str] = []
    monkeypatch.setattr(open_engines, "open_engine", _noting(opened, open_engines.open_engine))
    pipe.set_loras(["b"])
    assert sorted(opened) == ["conditioner", "denoiser"]
    opened.clear()
    pipe.set_loras([("b", 1)])
    assert not opened
    pipe.set_loras(["a"])
    assert sorted(opened) == ["conditioner", "denoiser", "text_encoder"]


def _noting(names: list[str], function: Any) -> Any:
    def noted(bundle: Any, name: str, **options: Any) -> Any:
        names.append(name)
        return function(bundle, name, **options)

    return noted


def test_a_file_that_is_gone_was_read(pipe: Pipeline, folder: Path) -> None:
    """Its weights stay as they are; a file that changes is read again."""
    file = folder / "gone.safetensors"
    shutil.copy(folder / "b.safetensors", file)
    pipe.set_loras(["gone"])
    with_b = drawn(pipe)
    file.unlink()
    assert np.array_equal(drawn(pipe), with_b)
    shutil.copy(folder / "a.safetensors", file)
    with_a = drawn(pipe)
    assert psnr(with_a, with_b) < 40
    file.unlink()
    drawn(pipe, loras=["b"])
    with pytest.raises(UsageError, match=r"there is no LoRA .*gone\.safetensors"):
        drawn(pipe)


def test_a_file_that_is_written_to_while_it_is_read(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    """The image is that of what it held before, or after; or there is an error, and everything is as before."""
    file, sources = tmp_path / "written.safetensors", [folder / f"{name}.safetensors" for name in "ab"]
    shutil.copy(sources[0], file)
    plain, stop = drawn(pipe), threading.Event()
    images = [drawn(pipe, loras=[source]) for source in sources]

    def write() -> None:
        for i in itertools.count():
            os.truncate(file, 1000)
            shutil.copy(sources[i % 2], file)  # in place
            shutil.copy(sources[1 - i % 2], tmp_path / "other")
            os.replace(tmp_path / "other", file)
            if stop.wait(0.005):
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(8):
            try:
                image = drawn(pipe, loras=[file])
            except CheckpointError:
                assert np.array_equal(drawn(pipe), plain)
            else:
                assert any(np.array_equal(image, one) for one in images)
    finally:
        stop.set()
        thread.join(60)
    assert any(np.array_equal(drawn(pipe, loras=[file]), one) for one in images)


def test_numbers_that_overflow_name_the_loras(pipe: Pipeline) -> None:
    with pytest.raises(NonFiniteError, match=r"; or apply less of the LoRAs \(a\)"):
        drawn(pipe, loras=[("a", 1e20)])
    with pytest.raises(LoraError, match=r"too large for F32 with a\.safetensors: apply less of it"):
        drawn(pipe, loras=[("a", 1e39)])


def test_no_other_engine_is_tried_where_a_lora_is_the_cause(folder: Path) -> None:
    with Pipeline.load(bundle_of("sd1"), threads=1) as pipe:
        before, ran = drawn(pipe), pipe.components.ran
        with pytest.raises(LoraError, match=r"^\S+ of the \w+ becomes too large for F32 with a\.safetensors"):
            pipe.set_loras([(folder / "a.safetensors", 1e39)])
        assert np.array_equal(drawn(pipe), before) and pipe.components.ran == ran


def test_low_memory(folder: Path) -> None:
    with Pipeline.load(
        bundle_of("sd1"), engine="onnxruntime", threads=1, low_memory=True, loras=[folder / "a.safetensors"]
    ) as pipe:
        first = drawn(pipe)
        pipe.set_loras([])
        plain = drawn(pipe)
        pipe.set_loras([folder / "a.safetensors"])
        with pytest.raises(UsageError, match="too large for F32"):
            pipe.set_loras([(folder / "b.safetensors", 1e39)])
        assert np.array_equal(drawn(pipe), first) and not np.array_equal(first, plain)
        assert not pipe.components.open


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_attention_kwargs": {"gligen": 1}}, "there is scale, the strength of LoRAs, and nothing else"),
        ({"cross_attention_kwargs": {"scale": "x"}}, "scale"),
        ({"loras": "a"}, "give a list of files"),
        ({"loras": [3]}, "3 is no LoRA"),
        ({"loras": [("a", "x")]}, "should be a number, not 'x'"),
    ],
)
def test_arguments_that_mean_nothing(settings: dict[str, Any], message: str, pipe: Pipeline) -> None:
    with pytest.raises(UsageError, match=message):
        pipe("a cat", **QUICK, **settings)
