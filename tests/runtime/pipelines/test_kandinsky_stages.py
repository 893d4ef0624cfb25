"""Kandinsky's prior and decoder as two pipelines, as diffusers' users write them: one program, both libraries."""

from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime import pipelines

from ...bundles import bundle_of, checkpoint_of
from ..parity.oracle import picture, psnr, their_warnings

SIZE: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 5, "output_type": "np"}
MASK = np.zeros((64, 64), np.float32)
MASK[10:40, 20:50] = 1
HINT = torch.from_numpy(np.asarray(picture(64, 64, 3), np.float32) / 255).permute(2, 0, 1)[None]

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "KandinskyV22Pipeline": ("kandinsky", {}),
    "KandinskyV22Img2ImgPipeline": ("kandinsky", {"image": picture(64, 64), "strength": 0.7}),
    "KandinskyV22InpaintPipeline": ("kandinsky_inpaint", {"image": picture(64, 64), "mask_image": MASK}),
    "KandinskyV22ControlnetPipeline": ("kandinsky_hint", {"hint": HINT}),
    "KandinskyV22ControlnetImg2ImgPipeline": (
        "kandinsky_hint",
        {"hint": HINT, "image": picture(64, 64), "strength": 0.7},
    ),
}


def opened(library: ModuleType, name: str, kind: str) -> Any:
    """Open diffusers' checkpoint, or the bundle of it."""
    with their_warnings():
        source = checkpoint_of(kind) if library is diffusers else bundle_of(kind.replace("_prior", ""))
        pipeline = getattr(library, name).from_pretrained(source)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def program(library: ModuleType, name: str) -> Any:
    kind, arguments = DECODERS[name]
    generator = torch.Generator().manual_seed(7)
    prior = opened(library, "KandinskyV22PriorPipeline", "kandinsky_prior")
    embeds, negative = prior("a red cat", "dull", generator=generator, num_inference_steps=4, return_dict=False)
    assert isinstance(embeds, torch.Tensor) and embeds.shape == negative.shape == (1, 32)
    decoder = opened(library, name, kind)
    given = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
    with their_warnings():
        images = decoder(
            image_embeds=embeds, negative_image_embeds=negative, **given, **SIZE, generator=generator
        ).images
    opened_components = None if library is diffusers else (prior, decoder)
    return images, opened_components


@pytest.mark.parametrize("name", DECODERS)
def test_two_pipelines_give_diffusers_images(name: str) -> None:
    expected, _ = program(diffusers, name)
    images, (prior, decoder) = program(pipelines, name)
    assert psnr(expected, images) >= 60
    assert "denoiser" not in prior._opening.pipeline().components._open
    assert "prior" not in decoder._opening.pipeline().components._open


def test_interpolation_and_unpacking() -> None:
    found = []
    for library in (diffusers, pipelines):
        prior = opened(library, "KandinskyV22PriorPipeline", "kandinsky_prior")
        generator = torch.Generator().manual_seed(3)
        mixture = ["a cat", picture(40, 50)]
        with their_warnings():
            out = prior.interpolate(mixture, [0.3, 0.7], num_inference_steps=4, generator=generator)
            decoder = opened(library, "KandinskyV22Pipeline", "kandinsky")
            found.append((out.image_embeds, decoder(**out, **SIZE, generator=generator).images))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert psnr(found[0][1], found[1][1]) >= 60


def test_a_callback_of_the_prior_has_its_latents() -> None:
    found, shapes = [], []

    def halve(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        shapes.append(tuple(tensors["latents"].shape))
        return {"latents": tensors["latents"] * torch.tensor([[1.0], [0.5], [0.25], [2.0]])}

    for library in (diffusers, pipelines):
        prior = opened(library, "KandinskyV22PriorPipeline", "kandinsky_prior")
        given: dict[str, Any] = {"negative_prompt": ["dull", "grey"], "num_inference_steps": 3}
        generator = torch.Generator().manual_seed(3)
        out = prior(["a cat", "a dog"], **given, generator=generator, callback_on_step_end=halve, output_type="np")
        found.append(np.concatenate([out["image_embeds"], out[1]]))
    assert set(shapes) == {(4, 32)}
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_checkpoints_share_a_bundle(tmp_path: Path) -> None:
    """A prior finds the decoder whose name differs as on the Hub; both stages are exported once."""
    for name, kind in (("my-prior", "kandinsky_prior"), ("my-decoder", "kandinsky")):
        (tmp_path / name).symlink_to(checkpoint_of(kind))
    prior = pipelines.KandinskyV22PriorPipeline.from_pretrained(tmp_path / "my-prior")
    decoder = pipelines.KandinskyV22Pipeline.from_pretrained(tmp_path / "my-decoder", prior=tmp_path / "my-prior")
    assert prior._opening.recipe().key() == decoder._opening.recipe().key()
    made = pipelines.DiffusionPipeline.from_pretrained(
        checkpoint_of("kandinsky_prior"), decoder=tmp_path / "my-decoder"
    )
    assert type(made) is pipelines.KandinskyV22PriorPipeline
    assert made._opening.recipe().key() == prior._opening.recipe().key()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs prompt"),
        ({"prompt": "a", "output_type": "pil"}, "is none of pt, np"),
        ({"prompt": "a", "prior_num_inference_steps": 3}, "KandinskyV22PriorPipeline has no argument"),
        ({"prompt": "a", "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "there is latents"),
    ],
)
def test_what_a_prior_refuses(arguments: dict[str, Any], message: str) -> None:
    prior = opened(pipelines, "KandinskyV22PriorPipeline", "kandinsky_prior")
    with pytest.raises(UsageError, match=message):
        prior(**arguments)


def test_a_prior_alone_needs_a_decoder() -> None:
    with pytest.raises(UsageError, match="name one with decoder="):
        pipelines.KandinskyV22PriorPipeline.from_pretrained(checkpoint_of("kandinsky_prior"))
    with pytest.raises(UsageError, match="decoder goes with a prior"):
        pipelines.StableDiffusionPipeline.from_pretrained(checkpoint_of("sd1"), decoder=checkpoint_of("kandinsky"))
    with pytest.raises(UsageError, match="needs image_embeds"):
        opened(pipelines, "KandinskyV22Pipeline", "kandinsky")()
    with pytest.raises(
        UsageError, match="needs image; KandinskyV22Pipeline, KandinskyV22ControlnetPipeline do without"
    ):
        opened(pipelines, "KandinskyV22Img2ImgPipeline", "kandinsky")(image_embeds=np.ones((1, 32)))


def test_attributes_of_a_prior() -> None:
    prior = opened(pipelines, "KandinskyV22PriorPipeline", "kandinsky_prior")
    again = pipelines.KandinskyV22PriorPipeline(**prior.components)
    assert again._opening is prior._opening
    with pytest.raises(UsageError, match="UnCLIPScheduler"):
        assert prior.scheduler
    with pytest.raises(UsageError, match="UnCLIPScheduler"):
        prior.scheduler = None
