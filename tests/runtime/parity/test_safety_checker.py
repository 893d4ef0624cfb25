"""The safety checker flags what diffusers' flags, makes it black, and can be switched off."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.nets.component_module import network_from_config
from sdengine.engines.nets.safety_checker import SafetyChecker
from sdengine.engines.nets.safety_checker_config import SafetyCheckerConfig
from sdengine.runtime import Pipeline
from sdengine.runtime.decode import safety_checker

from ...bundles import bundle_of
from ...checkpoints import safety_checker as tiny_checker
from .oracle import DECIBELS, generators, oracle, ours, picture, psnr, their_warnings

KIND = "sd1_checked"
CALL: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 96, "output_type": "np"}
SEEDS = tuple(range(6))


def their_images(task: str = "text", **call: Any) -> Any:
    with their_warnings():
        return oracle(KIND, task)(**call)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_flags_and_images_are_those_of_diffusers(engine: str) -> None:
    several = CALL | {"num_images_per_prompt": len(SEEDS)}
    theirs = their_images(**several, generator=generators(*SEEDS))
    assert any(theirs.nsfw_content_detected)
    assert not all(theirs.nsfw_content_detected)
    result = ours(KIND, engine=engine, precision="fp32")(**several, generator=generators(*SEEDS))
    assert result.nsfw_content_detected == theirs.nsfw_content_detected
    assert result.engines["safety_checker"] == engine
    assert psnr(theirs.images, result.images) >= DECIBELS
    for image, flagged, seed in zip(result.images, result.nsfw_content_detected, SEEDS, strict=True):
        assert (image.max() == 0) == flagged
        assert any(f"the image of seed {seed}," in warning for warning in result.warnings) == flagged


def test_a_crop_that_is_flagged_is_pasted_black() -> None:
    call = {"prompt": "a cat", "num_inference_steps": 2, "padding_mask_crop": 4, "strength": 1.0}
    images = {"image": picture(80, 80), "mask_image": picture(80, 80, hole=True)}
    flags = []
    for seed in SEEDS:
        [generator, own] = generators(seed, seed)
        theirs = their_images("inpaint", **call, **images, height=64, width=64, generator=generator)
        result = ours(KIND)(**call, **images, height=64, width=64, generator=own)
        assert result.nsfw_content_detected == theirs.nsfw_content_detected
        flags += theirs.nsfw_content_detected
        reference, found = (np.asarray(one.images[0], np.float32) / 255 for one in (theirs, result))
        assert psnr(reference, found) >= 55
    assert any(flags)


def test_latents_are_not_looked_at() -> None:
    result = ours(KIND)(**CALL | {"output_type": "latent"}, seed=[*SEEDS])
    assert result.nsfw_content_detected is None


def test_it_can_be_switched_off() -> None:
    flags = ours(KIND)(**CALL, seed=[*SEEDS]).nsfw_content_detected
    assert flags is not None
    flagged = flags.index(True)
    with Pipeline.load(bundle_of(KIND), engine="onnxruntime", threads=1, safety_checker=False) as pipe:
        off = pipe(**CALL, seed=flagged)
        assert off.images.max() > 0
        assert (off.nsfw_content_detected, *off.warnings) == (None, safety_checker.SWITCHED_OFF)
        assert "safety_checker" not in pipe.components.open
        assert pipe(**CALL, seed=flagged, safety_checker=True).nsfw_content_detected == [True]
        assert np.array_equal(off.images, pipe(**CALL, seed=flagged, safety_checker=False).images)
    again = ours(KIND)(**CALL, seed=flagged, safety_checker=False)
    assert again.settings["safety_checker"] is False


def test_decisions_are_those_of_diffusers() -> None:
    """At thresholds around which images lie close: three decimals, and special care for what comes later."""
    theirs = tiny_checker(seed=1)
    pixels = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeds = theirs.visual_projection(theirs.vision_model(pixels)[1])
        for concepts, thresholds, nearer in (
            (theirs.special_care_embeds, theirs.special_care_embeds_weights, 0.0),
            (theirs.concept_embeds, theirs.concept_embeds_weights, 0.005),
        ):
            cosines = torch.nn.functional.cosine_similarity(embeds[:, None], concepts[None], dim=-1)
            thresholds.copy_(cosines.quantile(0.9, dim=0) + nearer)
        _, flags = theirs(clip_input=pixels, images=np.zeros((64, 1, 1, 3)))
        margins = np.asarray(_network(theirs)(pixels.permute(0, 2, 3, 1)), np.float32)
    assert [safety_checker._is_flagged(row) for row in margins] == flags
    careless = [bool((row[3:] > 0.0005).any()) for row in margins]
    assert len({*flags}) == 2
    assert careless != flags, "no image is flagged for a concept of special care alone"


def _network(checker: torch.nn.Module) -> SafetyChecker:
    config: Mapping[str, Any] = checker.config.vision_config.to_dict()  # type: ignore[union-attr,operator]
    network = network_from_config(
        SafetyCheckerConfig.from_transformers({**config, "projection_dim": 16}), torch.float32
    )
    inner = "vision_model."
    names = {name: inner + name if name.startswith(inner) else name for name in checker.state_dict()}
    network.load_state_dict({names[name]: tensor for name, tensor in checker.state_dict().items()})
    assert isinstance(network, SafetyChecker)
    return network
