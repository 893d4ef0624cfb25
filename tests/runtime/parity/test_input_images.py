"""Images, masks and control images as users have them, drawn over as diffusers draws over them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import load_image
from PIL import ExifTags, Image

from .oracle import agree, both, ours, picture, psnr

SIZE = {"height": 72, "width": 104}


@pytest.mark.parametrize("kind", ["sdxl", "sd1"])
def test_a_mask_of_another_size(kind: str) -> None:
    settings: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 4, **SIZE}
    agree(kind, **settings, image=picture(72, 104, 1), mask_image=picture(40, 88, 0, hole=True))
    agree(kind, **settings, image=picture(64, 64, 1), mask_image=picture(90, 50, 1, hole=True))


def test_a_control_image_that_is_masked_with_minus_one() -> None:
    hint = torch.from_numpy(np.asarray(picture(64, 72, 3), np.float32) / 255).permute(2, 0, 1)[None].contiguous()
    hint[:, :, 20:50, 10:40] = -1
    agree("sd1", prompt="a cat", num_inference_steps=3, controlnets=1, control_image=hint)


def test_a_sideways_file_as_image_mask_and_control_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    files = {name: tmp_path / f"{name}.png" for name in ("image", "mask_image", "control_image")}
    picture(72, 104, 1).save(files["image"], exif=exif)
    picture(72, 104, 1, hole=True).save(files["mask_image"], exif=exif)
    picture(72, 104, 3).save(files["control_image"], exif=exif)
    upright: dict[str, Any] = {name: load_image(str(file)) for name, file in files.items()}
    settings: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 3, "controlnets": 1}
    expected, by_object = both("sd1", **settings, **upright)
    pipe = ours("sd1", 1)
    generator = torch.Generator().manual_seed(5)
    by_path = pipe("a cat", num_inference_steps=3, **files, generator=generator, output_type="np")
    assert (by_path.height, by_path.width) == (104, 72)
    assert np.array_equal(by_path.images, by_object.images)
    assert psnr(expected, by_path.images) > 80
    assert not by_path.warnings


def test_how_an_image_was_read_stands_in_the_warnings() -> None:
    image = picture(64, 64, 1)
    image.putalpha(128)
    result = ours("sd1")("a cat", num_inference_steps=4, image=image, output_type="latent")
    assert result.warnings == ("image: its transparency has no effect; what lies beneath is seen, as in diffusers",)
