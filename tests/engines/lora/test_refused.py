"""What cannot be applied is refused whole, with one message that says what it is."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import CheckpointError, UsageError
from sdengine.engines.files.floats import stored_from
from sdengine.engines.lora import merges, read_lora, rounded, strengths_of
from sdengine.engines.lora import networks_of as lora_networks_of

from ...bundles import bundle_of, checkpoint_of
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
    "checkpoint's folder": (lambda folder: checkpoint_of("sd1"), UsageError, "is a checkpoint, not a LoRA"),
    "LoRA of a ControlNet": (_more(lora_controlnet_conv_in__alpha=[1]), UsageError, "holds a LoRA for a ControlNet"),
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


def test_kandinsky(tmp_path: Path) -> None:
    """Its own LoRAs are read, with a layer that is called as an IP-Adapter's."""
    networks = lora_networks_of(Bundle(bundle_of("kandinsky")))
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="is for a model that reads text of width 24, not for Kandinsky"):
        read_lora(file, networks)
    rows, columns = networks["unet"]["add_embedding.image_proj.weight"]
    name = "unet.add_embedding.image_proj.lora_"
    parts = {f"{name}A.weight": np.ones((2, columns), np.float32), f"{name}B.weight": np.ones((rows, 2), np.float32)}
    save_file(parts, file)
    assert [change.name for _, change in read_lora(file, networks).changes] == ["add_embedding.image_proj.weight"]


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


DOWN = "mid_block.resnets.0.time_emb_proj"  # another number of inputs than of outputs
PARTS: dict[str, tuple[dict[str, list[int]], str]] = {
    "rank 0": ({"lora_down.weight": [0, 64], "lora_up.weight": [40, 0], "alpha": []}, "weight' is empty"),
    "magnitude of the inputs": ({"dora_scale": [64, 1]}, r"dora_scale has the shape \[64, 1\]"),
    "magnitude, transposed": ({"dora_scale": [1, 40]}, r"dora_scale has the shape \[1, 40\]"),
    "peft's magnitude of the inputs": ({"lora_magnitude_vector": [64]}, r"magnitude has the shape \[64\]"),
    "outputs as inputs": ({"weight": [40], "on_input": []}, "scales 40 inputs"),
    "peft's, matrix": ({"ia3_l": [1, 40]}, "scales 40 inputs"),
    "parts of two": ({"lora_up.weight": [40, 3]}, r"do not fit each other: \{'down': \(2, 64\), 'up': \(40, 3\)\}$"),
    "(IA)³ of another layer": (
        {"weight": [7], "on_input": []},
        r"its IA3 has the shapes .*time_emb_proj has \[40, 64\]",
    ),
    "two adapters": ({"lora_A.one.weight": [2, 64]}, "lora_down.weight' beside another tensor for the same part"),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_would_not_fit_when_they_are_applied(case: str, tmp_path: Path) -> None:
    parts, message = PARTS[case]
    name = flat("sd1", "unet", DOWN)
    assert networks_of("sd1")["unet"][f"{DOWN}.weight"] == (40, 64)
    if not set(parts) & {"weight", "ia3_l"}:
        parts = {"lora_down.weight": [2, 64], "lora_up.weight": [40, 2]} | parts
    save_file({f"{name}.{part}": np.ones(shape, np.float32) for part, shape in parts.items()}, tmp_path / "a")
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lora_alpha": "x"}, "lora_alpha of its adapter should be a number, not 'x'"),
        ({"alpha_pattern": ["to_q"]}, "alpha_pattern of its adapter should be numbers by names"),
        ({"rank_pattern": {"to_q": None}}, "rank_pattern of its adapter should be numbers by names"),
        ({"alpha_pattern": {"([": 2}}, r"'\(\[' is no pattern"),
    ],
)
def test_configurations_that_mean_nothing(config: dict[str, object], message: str, tmp_path: Path) -> None:
    kohya_lora("sd1", tmp_path / "adapter_model.safetensors", alpha=None)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": None} | config))
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "VBLORA"}, "it is of PEFT's kind VBLORA, which cannot be applied; LORA, LOHA, LOKR, IA3 can"),
        ({"init_lora_weights": "pissa_niter_4"}, r"trained over weights that are not the checkpoint's .*pissa_niter_4"),
        ({"init_lora_weights": "olora"}, r"trained over weights that are not the checkpoint's"),
        ({"kasa_config": {"beta": 1}}, "trained with PEFT's kasa_config"),
        ({"modules_to_save": ["conv_in"]}, r"trained beside it \(modules_to_save: \['conv_in'\]\)"),
        ({"bias": "all"}, r"trained beside it \(bias: 'all'\)"),
    ],
)
@pytest.mark.parametrize("place", ["beside", "in the header"])
def test_configurations_of_what_cannot_be_applied(
    place: str, config: dict[str, object], message: str, tmp_path: Path
) -> None:
    """The tensors alone look like a LoRA's."""
    config = {"r": 3, "lora_alpha": 3, "peft_type": "LORA", "init_lora_weights": "gaussian", "bias": "none"} | config
    header = {f"unet.{name}": value for name, value in config.items()}
    metadata = {"lora_adapter_metadata": json.dumps(header)} if place == "in the header" else None
    file = kohya_lora("sd1", tmp_path / "adapter_model.safetensors", alpha=None, metadata=metadata)
    if place == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message):
        read(file)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "none"])
def test_there_is_no_such_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no LoRA"):
        read(tmp_path / name)


@pytest.mark.parametrize(("dtype", "advice"), [("F32", ""), ("BF16", ""), ("F16", ", or export with --precision fp32")])
def test_what_becomes_too_large_for_its_type(dtype: str, advice: str, tmp_path: Path) -> None:
    networks = networks_of("sd1")
    lora = read_lora(kohya_lora("sd1", tmp_path / "a.safetensors", network_names=("unet",)), networks)
    merge = next(merges([(lora, strengths_of(1e39, networks))]))
    with pytest.raises(UsageError, match=f"too large for {dtype} with a.safetensors: apply less of it{advice}$"):
        rounded(merge, merge.applied(weights_of("sd1")["unet"][merge.name]), lambda v: stored_from(v, dtype), dtype)


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
