"""Kandinsky 2.2 in parts: batches of both stages, progress, callbacks, little memory, and what is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sdengine.engines.errors import CheckpointError, SdengineError, UsageError
from sdengine.export import export_bundle
from sdengine.runtime import Pipeline
from sdengine.runtime.cli.commands import app
from sdengine.runtime.decode.image_file import read_record
from sdengine.runtime.prompt import load_embeddings
from sdengine.runtime.serve.limits import Limits
from sdengine.runtime.serve.model import Model
from sdengine.runtime.serve.page.form_fields import fields_for
from sdengine.runtime.serve.worker import Worker
from typer.testing import CliRunner

from ..bundles import bundle_of, checkpoint_of
from .parity.oracle import ours, picture

SIZE: dict[str, Any] = {"height": 64, "width": 64}
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 1, "num_inference_steps": 4, "prior_num_inference_steps": 6, "negative_prompt": "dull"},
    {"prompt": "a dog by the sea", "seed": 2, "num_inference_steps": 7, "prior_num_inference_steps": 3},
    {"prompt": "a house", "seed": 3, "num_inference_steps": 5, "prior_num_inference_steps": 4, "guidance_scale": 1.0},
    {"image_embeds": np.linspace(-1, 1, 32, dtype=np.float32)[None], "seed": 4, "num_inference_steps": 6},
]
"""Different lengths of both stages, guided and not, with two embeddings to denoise, one and none."""


@pytest.fixture(scope="module")
def alone() -> list[Any]:
    """Each request by itself."""
    return [ours("kandinsky")(**request, **SIZE, output_type="np") for request in REQUESTS]


def prepared(pipe: Pipeline) -> list[Any]:
    return [sample for request in REQUESTS for sample in pipe.prepare(**request, **SIZE)]


def assert_equal(found: Any, alone: list[Any]) -> None:
    for image, own in zip(found, alone, strict=True):
        assert np.abs(np.asarray(image, np.float32) / 255 - own.images[0]).max() <= 0.51 / 255 + 1e-4


def test_requests_share_batches_of_both_stages(alone: list[Any]) -> None:
    pipe = ours("kandinsky")
    samples = prepared(pipe)
    launches = [step.samples for step in pipe.denoise(samples)]
    assert max(len(together) for together in launches if together[0] not in samples) == 4, "priors run together"
    assert max(len(together) for together in launches if together[0] in samples) == 4, "and decoders"
    assert_equal(pipe.decode(samples), alone)


def test_a_batch_takes_samples_through_both_stages(alone: list[Any]) -> None:
    pipe = ours("kandinsky")
    samples = prepared(pipe)
    waiting, finished = samples[::-1], []
    with pipe.batch(samples[3], slots=3) as batch:
        launches = 0
        while waiting or batch.active:
            while waiting and batch.fits(waiting[-1]):
                batch.put(waiting.pop())
            launches += 1
            if launches == 3:  # in the middle of its prior
                batch.take(samples[0])
                waiting.append(samples[0])
            finished += batch.step()
    assert sorted(map(id, finished)) == sorted(map(id, samples))
    assert all(sample.finished for sample in samples)
    assert_equal(pipe.decode(samples), alone)


def test_a_batch_says_what_does_not_fit() -> None:
    pipe = ours("kandinsky")
    one, two, three = prepared(pipe)[:3]
    [other] = pipe.prepare("a cat", height=128, width=64, seed=1)
    with pipe.batch(one, slots=2) as batch:
        batch.put(one)
        with pytest.raises(UsageError, match="in a batch already"):
            batch.put(one)
        with pytest.raises(UsageError, match="share sizes"):
            batch.put(other)
        batch.put(two)
        with pytest.raises(UsageError, match="all 2 slots"):
            batch.put(three)
    with pytest.raises(UsageError, match="not finished"):
        one.begin()


def test_a_worker_draws_it(alone: list[Any]) -> None:
    bundle = bundle_of("kandinsky")

    async def draw() -> list[Any]:
        async with Worker(Pipeline.load(bundle, engine="onnxruntime", threads=1)) as worker:
            tickets = [worker.submit(**request, **SIZE) for request in REQUESTS[:3]]
            return [(await ticket.result()).images[0] for ticket in tickets]

    assert_equal(asyncio.run(draw()), alone[:3])


def test_progress_and_callbacks_of_both_stages() -> None:
    pipe, told, seen = ours("kandinsky"), list[tuple[int, int]](), list[tuple[str, int, tuple[int, ...]]]()

    def watch(stage: str) -> Any:
        return lambda pipe, i, t, given: seen.append((stage, i, given["latents"].shape))

    from sdengine.runtime import Request

    request = Request(
        "a cat",
        **SIZE,
        seed=1,
        num_inference_steps=3,
        prior_num_inference_steps=2,
        prior_callback_on_step_end=watch("prior"),
        callback_on_step_end=watch("decoder"),
    )
    pipe.generate(request, lambda done, total: told.append((done, total)))
    assert told == [(i, 5) for i in range(6)]
    prior = [("prior", i, (1, 32, 1, 1)) for i in range(2)]
    assert seen == prior + [("decoder", i, (1, 4, 8, 8)) for i in range(3)]


def test_a_callback_changes_the_prior() -> None:
    def zeros(pipe: Any, i: int, t: Any, given: Any) -> Any:
        return {"latents": np.zeros_like(given["latents"])}

    given = {**SIZE, "seed": 1, "num_inference_steps": 2, "prior_num_inference_steps": 2, "output_type": "np"}
    changed = ours("kandinsky")("a cat", **given, prior_callback_on_step_end=zeros)
    other = ours("kandinsky")("a dog", **given, prior_callback_on_step_end=zeros)
    np.testing.assert_array_equal(changed.image_embeds, other.image_embeds)
    assert not np.allclose(changed.image_embeds, ours("kandinsky")("a cat", **given).image_embeds)


def test_the_prior_can_be_interrupted() -> None:
    def stop(pipe: Any, i: int, t: Any, given: Any) -> None:
        pipe._interrupt = True

    result = ours("kandinsky")("a cat", **SIZE, seed=1, prior_num_inference_steps=4, prior_callback_on_step_end=stop)
    assert any("interrupted after 1 of 4" in warning for warning in result.warnings)
    assert result.image_embeds is None and len(result.images) == 1
    given = {"seed": 1, "prior_num_inference_steps": 4, "prior_callback_on_step_end": stop, "output_type": "embeds"}
    embeds = ours("kandinsky")("a cat", **given)
    assert embeds.images.shape == (1, 32) and "interrupted after 1 of 4 evaluations" in embeds.warnings


def test_embeddings_take_no_part_of_the_decoder() -> None:
    pipe = ours("kandinsky_hint")
    given: dict[str, Any] = {"seed": 1, "prior_num_inference_steps": 2, "output_type": "embeds"}
    result = pipe("a cat", **given, guidance_scale=1.0, strength=0.5, latents=np.ones((1, 4, 8, 8)))
    assert result.negative_image_embeds.shape == (1, 32) and (result.height, result.width) == (0, 0)
    unused = ("guidance_scale", "strength", "latents of four axes")
    assert result.warnings == tuple(f"{name} has no effect: output_type='embeds' generates no image" for name in unused)
    assert "scheduler" not in result.settings and result.settings["prior_num_inference_steps"] == 2


def test_embeddings_from_one_command_to_the_next(tmp_path: Path) -> None:
    bundle, small = str(bundle_of("kandinsky")), ["--height", "64", "--width", "64", "--steps", "2", "--seed", "1"]

    def run(*arguments: str) -> None:
        done = CliRunner().invoke(app(), ["run", bundle, "--engine", "onnxruntime", "--threads", "1", *arguments])
        assert done.exit_code == 0, done.output

    embeds = tmp_path / "e.safetensors"
    options = ["--prior-steps", "2", "--seed", "1", "--output-type", "embeds", "-o", str(embeds)]
    run("a cat", "--negative-prompt", "dull", *options)
    run("--embeds", str(embeds), *small, "-o", str(tmp_path / "a.png"))
    made = load_embeddings(embeds)
    assert set(made) == {"image_embeds", "negative_image_embeds"}
    expected = ours("kandinsky")(**made, height=64, width=64, num_inference_steps=2, seed=1).images[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(expected))
    mixed = ["--images-and-prompts", "a dog", "--images-and-prompts", str(tmp_path / "a.png"), "--weights", "1,2"]
    run(*mixed, "--prior-steps", "2", *small, "-o", str(tmp_path / "b.png"))
    record = read_record(tmp_path / "b.png")
    assert record is not None and record.settings["images_and_prompts"] == ["a dog", str(tmp_path / "a.png")]


def test_little_memory(alone: list[Any]) -> None:
    with Pipeline.load(bundle_of("kandinsky"), engine="onnxruntime", threads=1, low_memory=True) as pipe:
        result = pipe(**REQUESTS[0], **SIZE, output_type="np")
        assert not pipe.components._open
    np.testing.assert_allclose(result.images, alone[0].images, atol=1e-5)
    assert set(result.engines) >= {"text_encoder", "prior_conditioner", "prior", "prior_decoder", "conditioner"}


def test_settings_say_how_the_prior_went() -> None:
    result = ours("kandinsky")("a cat", **SIZE, seed=1, num_inference_steps=2)
    assert (result.settings["prior_num_inference_steps"], result.settings["prior_guidance_scale"]) == (25, 4.0)


def test_settings_of_a_mixture_are_json() -> None:
    mixture = {"images_and_prompts": ["a cat", picture(40, 50)], "weights": [1, 2]}
    result = ours("kandinsky")(**mixture, **SIZE, seed=1, num_inference_steps=2, prior_num_inference_steps=2)
    assert json.loads(json.dumps(result.settings))["images_and_prompts"] == ["a cat", "<Image>"]


def test_a_long_prompt_cannot_be_kept() -> None:
    result = ours("kandinsky")("word " * 90, **SIZE, seed=1, num_inference_steps=2, prior_num_inference_steps=2)
    assert any("is too long by" in warning and "chunk" not in warning for warning in result.warnings)


def test_sizes_and_fields_are_those_of_the_decoder() -> None:
    fields = {}
    for kind in ("kandinsky", "kandinsky_inpaint", "kandinsky_hint"):
        model = Model.of(kind, ours(kind), None)
        fields[kind] = {field["name"]: field for field in fields_for(model, Limits())}
        width = fields[kind]["width"]
        assert (width["minimum"], width["maximum"], width["step"]) == (64, 128, 64)
    always = {"prompt", "image", "prior_num_inference_steps", "prior_guidance_scale", "negative_prompt"}
    differing = {"mask_image", "strength", "hint"}
    never = {"guidance_rescale", "padding_mask_crop", "weights", "negative_prior_prompt", "watermark", "prompt_2"}
    for kind, own in (
        ("kandinsky", {"strength"}),
        ("kandinsky_inpaint", {"mask_image"}),
        ("kandinsky_hint", {"strength", "hint"}),
    ):
        assert always <= set(fields[kind]) and not never & set(fields[kind])
        assert differing & set(fields[kind]) == own


HINT = np.zeros((1, 64, 64, 3), np.float32)
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("kandinsky", {}, "there is no prompt: give one of prompt, image_embeds and images_and_prompts"),
    ("kandinsky", {"prompt": "a", "image_embeds": np.ones((1, 32))}, "prompt and image_embeds were given"),
    ("kandinsky", {"image_embeds": np.ones((1, 31))}, "a width of 31; this checkpoint takes 32"),
    ("kandinsky", {"image_embeds": np.ones((2, 32)), "negative_image_embeds": np.ones((3, 32))}, "3 rows for 2"),
    ("kandinsky", {"prompt": "a", "negative_image_embeds": np.ones((1, 32))}, "give negative_prompt"),
    ("kandinsky", {"image_embeds": np.ones((1, 32)), "negative_prompt": "b"}, "the prior has nothing to do"),
    ("kandinsky", {"prompt": "a", "image": picture(64, 64), "strength": 0.001}, "leaves no step"),
    ("kandinsky", {"prompt": "a", "prior_num_inference_steps": 1}, "prior_num_inference_steps"),
    ("kandinsky", {"prompt": "a", "image": picture(64, 64), "mask_image": picture(64, 64)}, "an inpainting decoder"),
    ("kandinsky", {"prompt": "a", "hint": HINT}, "takes no hint"),
    ("kandinsky", {"prompt": "a", "control_image": HINT}, "has no ControlNets"),
    ("kandinsky", {"prompt_embeds": np.ones((1, 77, 32))}, "there is no prompt"),
    ("kandinsky", {"prompt": "a", "latents": np.ones((1, 31))}, "latents, as the prior's, has shape"),
    ("kandinsky", {"prompt": "word " * 90, "long_prompt": "chunk"}, "the prior takes 77"),
    ("kandinsky", {"prompt": "a", "guidance_rescale": 0.5}, "guidance_rescale has no meaning for Kandinsky 2.2"),
    ("kandinsky", {"prompt": "a", "weights": [1.0]}, "weights needs images_and_prompts"),
    ("kandinsky", {"images_and_prompts": ["a", "b"], "weights": [1.0]}, "2 entries, weights 1"),
    ("kandinsky", {"images_and_prompts": ["a", 3], "weights": [1.0, 2.0]}, "images_and_prompts holds 3"),
    ("kandinsky_hint", {"prompt": "a"}, "give hint"),
    ("kandinsky_hint", {"prompt": "a", "hint": np.zeros((1, 32, 64, 3))}, "hint is 64x32 pixels, where 64x64"),
    ("kandinsky_inpaint", {"prompt": "a"}, "an inpainting checkpoint"),
    (
        "kandinsky_inpaint",
        {"prompt": "a", "image": picture(64, 64), "mask_image": picture(64, 64), "strength": 0.5},
        "inpainting takes none",
    ),
    ("sd1", {"prompt": "a", "image_embeds": np.ones((1, 32))}, "image_embeds is Kandinsky 2.2's"),
    ("sd1", {"prompt": "a", "output_type": "embeds"}, "is for a prior"),
]


@pytest.mark.parametrize(("kind", "given", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_refused(kind: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ours(kind)(**given, **SIZE, seed=1, num_inference_steps=2)


def test_a_decoder_needs_its_prior(tmp_path: Path) -> None:
    decoder = checkpoint_of("kandinsky")
    bare = tmp_path / "bare"
    bare.mkdir()
    for entry in decoder.iterdir():
        if entry.name != "README.md":
            (bare / entry.name).symlink_to(entry)
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (bare, {}, "its card names none: name it with --prior"),
        (
            decoder,
            {"offline": True},
            "kandinsky-2-2-prior is neither a local path nor in the local",
        ),
        (decoder, {"prior": decoder}, "is no prior of Kandinsky 2.2"),
        (decoder, {"prior": checkpoint_of("sd1")}, "is no prior of Kandinsky 2.2"),
        (checkpoint_of("kandinsky_prior"), {}, "is a prior: export a decoder with it"),
        (checkpoint_of("sd1"), {"prior": decoder}, "prior goes with the decoder of Kandinsky 2.2"),
    ]
    for checkpoint, given, message in cases:
        with pytest.raises(SdengineError, match=message):
            export_bundle(checkpoint, tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()


def test_a_prior_of_another_width(tmp_path: Path) -> None:
    from diffusers import PriorTransformer

    other = tmp_path / "prior"
    other.mkdir()
    for entry in checkpoint_of("kandinsky_prior").iterdir():
        if entry.name != "prior":
            (other / entry.name).symlink_to(entry)
    PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16).save_pretrained(
        other / "prior"
    )
    with pytest.raises(CheckpointError, match=r"different widths \(the prior 16, the decoder 32"):
        export_bundle(checkpoint_of("kandinsky"), tmp_path / "out", prior=other)
    assert not (tmp_path / "out").exists()
