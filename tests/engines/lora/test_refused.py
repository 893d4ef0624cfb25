"""What cannot be applied is refused whole, with one message that says what it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sdengine.engines.errors import CheckpointError, UsageError
from sdengine.engines.lora import read_lora

from ...bundles import checkpoint_of
from .networks import flat, kohya_lora, merged, networks_of, weights_of

MODULE = "mid_block.attentions.0.proj_in"


def read(file: Path, kind: str = "sd1") -> None:
    read_lora(file, networks_of(kind))


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("oft_blocks", "OFT"),
        ("a1.weight", "GLoRA"),
        ("q_layer.weight", "T-LoRA"),
        ("reshape_weight", "ComfyUI's replacements"),
        ("vera_lambda_b", "VeRA"),
    ],
)
def test_other_kinds_are_named(key: str, what: str, tmp_path: Path) -> None:
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    save_file(load_file(file) | {f"{flat('sd1', 'unet', MODULE)}.{key}": np.ones((2, 2), np.float32)}, file)
    with pytest.raises(UsageError, match=f"holds {what}.*cannot be applied"):
        read(file)


def _more(**tensors: list[int]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        stored = load_file(kohya_lora("sd1", folder / "a.safetensors"))
        added = {name.replace("__", "."): np.ones(shape, np.float32) for name, shape in tensors.items()}
        save_file(stored | added, folder / "a.safetensors")
        return folder / "a.safetensors"

    return write


def _less(part: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        stored = load_file(kohya_lora("sd1", folder / "a.safetensors"))
        del stored[f"{flat('sd1', 'unet', MODULE)}.{part}"]
        save_file(stored, folder / "a.safetensors")
        return folder / "a.safetensors"

    return write


def _text(folder: Path) -> Path:
    (folder / "a.safetensors").write_text("<html>not found</html>")
    return folder / "a.safetensors"


def _cut_off(folder: Path) -> Path:
    file = kohya_lora("sd1", folder / "a.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    return file


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


BAD: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "missing": (lambda folder: folder / "none", UsageError, "there is no LoRA"),
    "folder": (_empty, UsageError, "name the file"),
    "page": (_text, CheckpointError, "it is an HTML page"),
    "cut off": (_cut_off, CheckpointError, "no intact .safetensors"),
    "unknown module": (_more(lora_unet_other__alpha=[1]), UsageError, "1 of its .* tensors belong to nothing"),
    "unknown part": (_more(lora_unet_conv_in__lora_odd=[1]), UsageError, "belong to nothing"),
    "no up": (_less("lora_up.weight"), UsageError, "lora_down.weight': up is missing beside it"),
    "no down": (_less("lora_down.weight"), UsageError, "lora_up.weight': down is missing beside it"),
    "video": (_more(blocks__0__self_attn__q__lora_A__weight=[2, 2]), UsageError, "is for Wan.*, not for"),
    "flux": (_more(lora_unet_double_blocks_0_img_attn_qkv__alpha=[1]), UsageError, "is for FLUX, not for"),
    "checkpoint": (
        lambda folder: checkpoint_of("sd1") / "unet/diffusion_pytorch_model.safetensors",
        UsageError,
        "is a checkpoint, not a LoRA: `sdengine export",
    ),
    "controlnet": (
        lambda folder: checkpoint_of("controlnet_sd") / "diffusion_pytorch_model.safetensors",
        UsageError,
        "holds a ControlNet",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str, tmp_path: Path) -> None:
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        read(make(tmp_path))


def test_of_another_family_says_of_which(tmp_path: Path) -> None:
    """By its header, or by the width of the text that it reads."""
    file = kohya_lora("sd1", tmp_path / "a.safetensors", metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    with pytest.raises(UsageError, match="is for SDXL, not for a model that reads text of width 56"):
        read(file, "sdxl")
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    wide = {f"{key}.lora_down.weight": np.ones((2, 2048)), f"{key}.lora_up.weight": np.ones((16, 2))}
    save_file({name: array.astype(np.float32) for name, array in wide.items()}, file)
    with pytest.raises(UsageError, match=r"is for SDXL, not for .*changes a weight of 16 by 2048, .* has \[16, 24\]"):
        read(file)


def test_not_a_number(tmp_path: Path) -> None:
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    stored = load_file(file)
    stored[f"{flat('sd1', 'unet', MODULE)}.lora_up.weight"][0] = np.nan
    save_file(stored, file)
    with pytest.raises(CheckpointError, match=r"proj_in\.lora_up\.weight' holds NaN or infinity"):
        read(file)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ("much", "should be a number, not 'much'"),
        (float("nan"), "should be a number"),
        ({"text": 1.0}, "names 'text'"),
        ({"unet": {"sideways": 1.0}}, "names 'sideways'"),
        ({"unet": {"down": {"block_3": 1.0}}}, "'block_3' of down, where block_0, block_1, block_2 have attentions"),
        ({"unet": {"up": {"block_1": [1.0, 2.0, 3.0]}}}, "3 numbers for block_1 of up, which has 2 attentions"),
        ({"text_encoder": {"down": 1.0}}, "only the UNet has blocks"),
    ],
)
def test_strengths_that_mean_nothing(strength: object, message: str, tmp_path: Path) -> None:
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=message):
        merged("sd1", (file, strength))
    assert weights_of("sd1")
