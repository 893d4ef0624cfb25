"""The guides' programs, run with diffusers' imports and with ours: the pictures are the same."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from sdengine.runtime.pipelines import bundle_cache, from_pretrained, opening

from ...bundles import bundle_of, checkpoint_of, controlnets_of
from ..parity.oracle import picture, psnr, their_warnings
from .programs import PROGRAMS

DECIBELS = 55.0
"""What the pictures must agree to; they are 8-bit, so that one value of 255 in a hundred that differs makes 68."""


@functools.cache
def loras() -> Path:
    """Return a folder with two LoRAs for ``sd1``, as diffusers writes them."""
    target = checkpoint_of("sd1").with_name("sd1-loras")
    if not target.exists():
        folder = Path(tempfile.mkdtemp(dir=target.parent))
        for seed, name in enumerate(("first", "second")):
            with their_warnings():
                unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint_of("sd1"), subfolder="unet")
                torch.manual_seed(seed)
                unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "ff.net.2"], init_lora_weights=False))
                diffusers.StableDiffusionPipeline.save_lora_weights(
                    folder, get_peft_model_state_dict(unet), weight_name=f"{name}.safetensors"
                )
        with contextlib.suppress(OSError):  # another session was faster
            folder.rename(target)
    return target


def paths() -> dict[str, Any]:
    """What the programs name in capitals, as diffusers takes it."""
    sdxl_nets = controlnets_of("sdxl", 2)
    return {
        "SD": checkpoint_of("sd1"),
        "SD_CHECKED": checkpoint_of("sd1_checked"),
        "SDXL": checkpoint_of("sdxl"),
        "REFINER": checkpoint_of("sdxl_refiner"),
        "SD_INPAINT": checkpoint_of("sd_inpaint"),
        "CONTROLNET": controlnets_of("sd1", 1)[0],
        "SDXL_CONTROLNET": sdxl_nets[0],
        "SDXL_CONTROLNET_2": sdxl_nets[1],
        "LORA_FOLDER": loras(),
        "PICTURE": picture(64, 64),
        "MASK": picture(64, 64, hole=True),
        "DTYPE": torch.float32,
    }


def run(program: str, *, ours: bool) -> tuple[list[NDArray[Any]], Any]:
    """Run a program; return its pictures as arrays of 0 to 1, and what else it left to compare."""
    text = PROGRAMS[program]
    if ours:
        text = text.replace("from diffusers import", "from sdengine.runtime.pipelines import")
    names = paths() | {"OURS": ours}
    with their_warnings():
        exec(compile(text, program, "exec"), names)
    pictures = [
        np.asarray(image, np.float32) / (1 if isinstance(image, np.ndarray) else 255) for image in names["images"]
    ]
    return pictures, names.get("values")


@functools.cache
def expected(program: str) -> tuple[list[NDArray[Any]], Any]:
    return run(program, ours=False)


def shared_export(arguments: Sequence[str], *, say: Callable[[str], None], held: Sequence[int] = ()) -> str:
    """Take the place of the process that exports: give the bundle that all tests share."""
    checkpoint = Path(arguments[1])
    kind = checkpoint.name.rpartition("-")[0]
    assert arguments[0] == "export"
    assert checkpoint == checkpoint_of(kind)
    target = arguments[arguments.index("--output") + 1]
    shutil.copytree(bundle_of(kind, controlnets=arguments.count("--controlnet")), target)
    return ""


@pytest.fixture(params=["onnxruntime", "torch"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An engine that pipelines run on, with a cache of their own."""
    name: str = request.param
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(bundle_cache, "run_command", shared_export)
    monkeypatch.setattr(from_pretrained, "Options", functools.partial(opening.Options, engine=name))
    return name


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_guide_draws_the_same(program: str, engine: str, tmp_path: Path) -> None:
    theirs, values = expected(program)
    found, own_values = run(program, ours=True)
    assert own_values == values
    assert len(found) == len(theirs)
    for ours, reference in zip(found, theirs, strict=True):
        assert reference.std() > 0.05, "the reference says little"
        assert psnr(ours, reference) >= DECIBELS
    made = [bundle.source for bundle in bundle_cache.cached_bundles()]
    assert len(made) == len({*made}), "one checkpoint was exported twice"
