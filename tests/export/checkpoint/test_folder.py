import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, MultiControlNetModel
from safetensors.torch import load_file, save_file
from sdengine.engines.errors import CheckpointError, UsageError
from sdengine.export.checkpoint import CheckpointComponent, open_checkpoint, open_controlnet

from tests.clip_tokenizer import EOS

FolderOf = Callable[[str], Path]

FAMILIES = {
    "sd1": "sd1",
    "sd2": "sd2",
    "sdxl": "sdxl",
    "sdxl_refiner": "sdxl-refiner",
    "sd_inpaint": "sd1",
    "sdxl_inpaint": "sdxl",
    "lcm": "sd1",
}


def same_as(component: CheckpointComponent, module: Any) -> None:
    """Every tensor of the component is the module's of that name, bit by bit, and there are no others."""
    state = {
        name if name.startswith("text_") or not component.name.startswith("text") else f"text_model.{name}": tensor
        for name, tensor in module.state_dict().items()
    }
    assert set(component.tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(component.tensors[name].read(), tensor.numpy(), err_msg=name)


def _edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps(content))


def _copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _unet_file(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_read_as_diffusers_reads_it(folder_of: FolderOf, name: str) -> None:
    folder = folder_of(name)
    checkpoint = open_checkpoint(folder)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert checkpoint.family == FAMILIES[name]
    assert checkpoint.source == str(folder)
    assert checkpoint.notes == ()
    modules = {n: m for n, m in pipeline.components.items() if isinstance(m, torch.nn.Module)}
    assert set(checkpoint.components) == set(modules)
    for part, module in modules.items():
        component = checkpoint.components[part]
        same_as(component, module)
        assert component.class_name == type(module).__name__
        assert component.config == json.loads((folder / part / "config.json").read_text())
    assert checkpoint.scheduler["_class_name"] == type(pipeline.scheduler).__name__
    assert checkpoint.scheduler["prediction_type"] == pipeline.scheduler.config.prediction_type
    tokenizers = {n: t for n, t in pipeline.components.items() if n.startswith("tokenizer") and t is not None}
    assert set(checkpoint.tokenizers) == set(tokenizers)
    for part, tokenizer in tokenizers.items():
        assert checkpoint.pad_tokens[part] == tokenizer.pad_token
        assert checkpoint.tokenizers[part] == folder / part


def test_the_flags_of_the_pipeline(folder_of: FolderOf) -> None:
    assert open_checkpoint(folder_of("sdxl")).model_index["force_zeros_for_empty_prompt"] is True
    refiner = open_checkpoint(folder_of("sdxl_refiner")).model_index
    assert refiner["requires_aesthetics_score"] is True
    assert refiner["force_zeros_for_empty_prompt"] is False
    assert "_diffusers_version" not in refiner


def test_a_file_is_linked_only_where_it_holds_just_this(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    assert open_checkpoint(folder).components["unet"].file == _unet_file(folder)
    file = folder / "text_encoder_2" / "model.safetensors"
    weights = load_file(file)
    assert open_checkpoint(folder).components["text_encoder_2"].file == file
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # transformers before 4.31
    save_file(weights, file)
    encoder = open_checkpoint(folder).components["text_encoder_2"]
    assert encoder.file is None
    assert "text_model.embeddings.position_ids" not in encoder.tensors


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_a_text_encoder_of_either_transformers(folder_of: FolderOf, tmp_path: Path, prefix: str) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    file = folder / "text_encoder" / "model.safetensors"
    bare = {name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}
    save_file({prefix + name: tensor for name, tensor in bare.items()}, file)
    encoder = open_checkpoint(folder).components["text_encoder"]
    assert set(encoder.tensors) == {f"text_model.{name}" for name in bare}
    assert (encoder.file is None) == (prefix == "")


@pytest.mark.parametrize("convolutions", [False, True])
def test_the_vaes_old_attention_names(folder_of: FolderOf, tmp_path: Path, convolutions: bool) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in load_file(file).items():
        for new, former in old.items():
            if f".{new}." in name:
                name = name.replace(f".{new}.", f".{former}.")
                tensor = tensor[:, :, None, None] if convolutions and tensor.ndim == 2 else tensor
        weights[name] = tensor
    save_file(weights, file)
    vae = open_checkpoint(folder).components["vae"]
    same_as(vae, AutoencoderKL.from_pretrained(folder_of("sd1") / "vae"))
    assert vae.file is None
    assert all(tensor.verbatim for tensor in vae.tensors.values())


def test_a_path_that_the_system_refuses() -> None:
    with pytest.raises(CheckpointError, match=r"cannot read x+.*: File name too long"):
        open_checkpoint("x" * 5000 + "/y/z")


def test_variants(folder_of: FolderOf, tmp_path: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder_of("sdxl"), dtype=torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    half = open_checkpoint(tmp_path / "half")
    assert half.components["unet"].tensors["conv_in.weight"].dtype == "F16"
    assert [note.partition(":")[0] for note in half.notes] == ["unet", "vae", "text_encoder", "text_encoder_2"]
    assert "fp16" in half.notes[0]
    assert open_checkpoint(tmp_path / "half", variant="fp16").notes == ()
    with pytest.raises(CheckpointError, match=r"no 'bf16' variant.*it has fp16"):
        open_checkpoint(tmp_path / "half", variant="bf16")
    with pytest.raises(CheckpointError, match=r"no 'fp16' variant.*the plain one"):
        open_checkpoint(folder_of("sdxl"), variant="fp16")
    pipeline.to(torch.float32).save_pretrained(tmp_path / "half")  # both side by side now
    both = open_checkpoint(tmp_path / "half")
    assert both.components["unet"].tensors["conv_in.weight"].dtype == "F32"
    assert both.notes == ()
    half = open_checkpoint(tmp_path / "half", variant="fp16")
    assert half.components["vae"].tensors["encoder.conv_in.weight"].dtype == "F16"


@pytest.mark.parametrize("have", [("unet",), ("unet", "text_encoder_2"), ("vae", "text_encoder")])
@pytest.mark.parametrize("beside", [True, False])
def test_a_variant_that_only_some_parts_have(
    folder_of: FolderOf, tmp_path: Path, have: tuple[str, ...], beside: bool
) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    half = DiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    for part in have:
        if not beside:
            next((folder / part).glob("*.safetensors")).unlink()
        getattr(half, part).save_pretrained(folder / part, variant="fp16")
    checkpoint = open_checkpoint(folder, variant="fp16")
    theirs = DiffusionPipeline.from_pretrained(folder, variant="fp16")
    for name, component in checkpoint.components.items():
        same_as(component, getattr(theirs, name).to(torch.float16 if name in have else torch.float32))
        assert {tensor.dtype for tensor in component.tensors.values()} == {"F16" if name in have else "F32"}
    lacking = [name for name in checkpoint.components if name not in have]
    assert [note.partition(":")[0] for note in checkpoint.notes] == lacking
    assert all("no fp16 variant, its plain weights are taken" in note for note in checkpoint.notes)
    with pytest.raises(CheckpointError, match=r"no 'bf16' variant of its weights; it has fp16, the plain one"):
        open_checkpoint(folder, variant="bf16")


def test_a_part_that_has_another_variant_alone(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    for part, variant in (("unet", "fp16"), ("vae", "bf16")):
        file = next((folder / part).glob("*.safetensors"))
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    notes = [note for note in open_checkpoint(folder, variant="fp16").notes if note.startswith("vae:")]
    assert notes == ["vae: took the bf16 variant, the plain weights are not there"]


def test_a_variant_of_shards_as_older_diffusers_named_them(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    unet = folder / "unet"
    pipeline.unet.save_pretrained(unet, max_shard_size="200KB", variant="fp16")
    index = next(unet.glob("*.index.fp16.json"))
    content = json.loads(index.read_text())
    for shard in unet.glob("*.fp16-*-of-*"):
        stem, numbers = shard.name.removesuffix(".safetensors").split(".fp16")
        shard.rename(unet / f"{stem}{numbers}.fp16.safetensors")
    content["weight_map"] = {
        name: re.sub(r"\.fp16(-\d+-of-\d+)", r"\1.fp16", shard) for name, shard in content["weight_map"].items()
    }
    index.write_text(json.dumps(content))
    same_as(open_checkpoint(folder, variant="fp16").components["unet"], pipeline.unet)
    assert open_checkpoint(folder).components["unet"].tensors["conv_in.weight"].dtype == "F32"


@pytest.mark.parametrize("whole_weights", [False, True])
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_config_of_a_whole_clip(folder_of: FolderOf, tmp_path: Path, kind: str, whole_weights: bool) -> None:
    """transformers takes the text part of it; defaults need not be written."""
    folder = _copy(folder_of(kind), tmp_path)
    plain = open_checkpoint(folder)
    for name in (name for name in plain.components if name.startswith("text")):
        file = folder / name / "config.json"
        inner = json.loads(file.read_text())
        assert inner["hidden_act"] == "quick_gelu" or inner.pop("hidden_act") == "gelu"
        inner |= {"hidden_act": plain.components[name].config["hidden_act"]}
        del inner["max_position_embeddings"]  # as it is by default
        outer = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 999, "vision_config": {}}
        file.write_text(json.dumps(outer | {"text_config": inner}))
        if whole_weights:
            weights = load_file(folder / name / "model.safetensors")
            weights |= {"logit_scale": torch.ones(()), "vision_model.x.weight": torch.ones(2)}
            weights |= {"visual_projection.weight": torch.ones(2, 2)}
            if name == "text_encoder":
                weights["text_projection.weight"] = torch.ones(24, 24)
            save_file(weights, folder / name / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert checkpoint.family == plain.family
    for name in (name for name in plain.components if name.startswith("text")):
        config, theirs = checkpoint.components[name].config, getattr(pipeline, name).config
        same_as(checkpoint.components[name], getattr(pipeline, name))
        for option in ("hidden_size", "hidden_act", "max_position_embeddings", "projection_dim", "eos_token_id"):
            assert config[option] == getattr(theirs, option), option


def test_a_list_of_equal_widths(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    lists = {"cross_attention_dim": [24] * 4, "attention_head_dim": [4] * 4, "layers_per_block": [1] * 4}
    _edit(folder / "unet" / "config.json", **lists, only_cross_attention=[False] * 4, sample_size=[8, 8])
    same_as(open_checkpoint(folder).components["unet"], DiffusionPipeline.from_pretrained(folder).unet)
    _edit(folder / "unet" / "config.json", cross_attention_dim=[24, 24, 24, 32])
    with pytest.raises(CheckpointError, match=r"text of width \[24, 24, 24, 32\]"):
        open_checkpoint(folder)
    folder = Path(shutil.copytree(folder_of("controlnet_sd"), tmp_path / "net"))
    _edit(folder / "config.json", cross_attention_dim=[24] * 4)
    open_controlnet(folder)


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("version", ["0.6.0", "0.8.1", "0.9.0.dev0", "0.9.0", "0.42.1", None])
@pytest.mark.parametrize(
    "pipeline",
    [
        "StableDiffusionPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "LatentConsistencyModelPipeline",
    ],
)
def test_the_sample_size_that_an_old_diffusers_wrote(
    folder_of: FolderOf, tmp_path: Path, pipeline: str, version: str | None
) -> None:
    kind = {"StableDiffusionInpaintPipeline": "sd_inpaint", "LatentConsistencyModelPipeline": "lcm"}.get(
        pipeline, "sd1"
    )
    folder = _copy(folder_of(kind), tmp_path)
    _edit(folder / "unet" / "config.json", _diffusers_version=version)
    if version is None:
        content = json.loads((folder / "unet" / "config.json").read_text())
        del content["_diffusers_version"]
        (folder / "unet" / "config.json").write_text(json.dumps(content))
    if "ControlNet" in pipeline:
        shutil.copytree(folder_of("controlnet_sd"), folder / "controlnet")
        _edit(folder / "model_index.json", controlnet=["diffusers", "ControlNetModel"], _class_name=pipeline)
    theirs = getattr(diffusers, pipeline).from_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.components["unet"].config["sample_size"] == theirs.unet.config.sample_size
    changed = any("sample_size 8, written by an old diffusers, is taken as 64" in note for note in checkpoint.notes)
    assert changed == (theirs.unet.config.sample_size == 64)


def test_what_becomes_of_an_old_scheduler_is_said(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    _edit(folder / "scheduler" / "scheduler_config.json", steps_offset=0)
    [note] = open_checkpoint(folder).notes
    assert note.startswith("the scheduler config has steps_offset=0: taken as 1 in text-to-image")
    folder = Path(shutil.copytree(folder_of("sdxl"), tmp_path / "sdxl"))
    _edit(folder / "scheduler" / "scheduler_config.json", steps_offset=0)
    assert open_checkpoint(folder).notes == ()


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
def test_shards_and_pickles(folder_of: FolderOf, tmp_path: Path, variant: str | None, safe: bool) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(folder_of("sdxl"))
    unet = folder / "unet"
    _unet_file(folder).unlink()
    pipeline.unet.save_pretrained(unet, max_shard_size="200KB", variant=variant, safe_serialization=safe)
    assert len(list(unet.glob("*-of-*"))) > 2
    checkpoint = open_checkpoint(folder)
    same_as(checkpoint.components["unet"], pipeline.unet)
    assert checkpoint.components["unet"].file is None
    index = next(unet.glob("*.index*.json"))
    if not safe:
        return
    shard = sorted(unet.glob("*-of-*"))[1]
    shard.rename(unet / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing, though {index.name}"):
        open_checkpoint(folder)
    (unet / "elsewhere").rename(shard)
    content = json.loads(index.read_text())
    content["weight_map"]["conv_in.weight"] = "../" + shard.name
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        open_checkpoint(folder)
    content["weight_map"]["conv_in.weight"] = shard.name
    content["weight_map"]["conv_in.bias"] = sorted(unet.glob("*-of-*"))[2].name
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"does not hold 'conv_in\.\w+'"):
        open_checkpoint(folder)


def test_a_whole_pickled_file(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(folder_of("sd1"))
    _unet_file(folder).unlink()
    pipeline.unet.save_pretrained(folder / "unet", safe_serialization=False)
    unet = open_checkpoint(folder).components["unet"]
    same_as(unet, pipeline.unet)
    assert unet.file is None


def test_a_missing_weight_is_named_with_its_file(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    weights = load_file(_unet_file(folder))
    removed = {name: tensor for name, tensor in weights.items() if not name.startswith("conv_out")}
    save_file(removed, _unet_file(folder))
    with pytest.raises(
        CheckpointError, match=r"unet \(.*diffusion_pytorch_model.safetensors\): 'conv_out.weight' is"
    ) as e:
        open_checkpoint(folder)
    assert "'conv_out.bias' is missing" in str(e.value)
    save_file({name.replace("conv_out", "conv_outt"): tensor for name, tensor in weights.items()}, _unet_file(folder))
    with pytest.raises(CheckpointError, match=r"'conv_out.weight' is missing \(the file has 'conv_outt.weight'"):
        open_checkpoint(folder)
    save_file(weights | {"extra.weight": torch.ones(2)}, _unet_file(folder))
    with pytest.raises(CheckpointError, match=r"'extra\.weight' belongs to no part"):
        open_checkpoint(folder)
    save_file(weights | {"conv_in.weight": torch.ones(16, 4, 3, 5)}, _unet_file(folder))
    with pytest.raises(CheckpointError, match=r"'conv_in.weight' has the shape \[16, 4, 3, 5\], its config asks"):
        open_checkpoint(folder)


def test_merges_that_are_no_text(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    (folder / "tokenizer" / "merges.txt").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(CheckpointError, match=r"merges\.txt is no text in UTF-8 .*: it is compressed with gzip"):
        open_checkpoint(folder)


def test_weights_of_whole_numbers(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    weights = load_file(_unet_file(folder))
    save_file(weights | {"conv_in.bias": weights["conv_in.bias"].to(torch.int16)}, _unet_file(folder))
    with pytest.raises(CheckpointError, match=r"unet: 'conv_in\.bias' of .* is of type I16; weights are F16"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"unet": [None, None]}, r"names no unet"),
        ("model_index.json", {"tokenizer": [None, None]}, r"names no tokenizer"),
        ("model_index.json", {"text_encoder": [None, None]}, r"names no text_encoder"),
        ("model_index.json", {"unet": ["diffusers", "UNet3DConditionModel"]}, "only UNet2DConditionModel"),
        ("model_index.json", {"transformer": ["diffusers", "FluxTransformer2DModel"]}, "'transformer' .Flux"),
        ("unet/config.json", {"in_channels": 8}, r"8 channels into 4, the VAE has 4: .* inpainting \(9 to 4\)"),
        ("unet/config.json", {"cross_attention_dim": 32}, "text of width 32, the encoders give text_encoder 24"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type='timestep' is not supported"),
        ("unet/config.json", {"block_out_channels": [16, 24]}, "unet"),
        ("unet/config.json", {"sample_size": "64"}, r"sample_size='64', a number of latents or two"),
        ("unet/config.json", {"sample_size": [8, 8, 8]}, r"sample_size=\[8, 8, 8\], a number of latents or two"),
        ("unet/config.json", {"sample_size": -8}, r"sample_size=-8"),
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMSheduler"}, "did you mean 'PNDMScheduler'"),
        ("scheduler/scheduler_config.json", {"_class_name": ["DDIMScheduler"]}, "which is not known"),
        ("unet/config.json", {"transformer_layers_per_block": 10**8}, "=100000000, its weights are 444 tensors"),
        ("unet/config.json", {"layers_per_block": [1, 1, 1, 10**8]}, r"its weights are 444 tensors"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**8}, "=100000000, its weights are"),
        ("text_encoder/config.json", {"vocab_size": 600}, "ids up to 633, the text encoder embeds 600|has the shape"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder_of: FolderOf, tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    _edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_conditions_of_sdxl(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    _edit(folder / "unet" / "config.json", projection_class_embeddings_input_dim=85)
    with pytest.raises(CheckpointError, match="is 85, which is not the pooled text's 20 and a multiple of 10"):
        open_checkpoint(folder)
    _edit(folder / "model_index.json", text_encoder_2=["transformers", "CLIPTextModel"])
    with pytest.raises(CheckpointError, match="takes pooled text, but no text_encoder_2"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model_index.json", "has no model_index.json, only"),
        ("unet/config.json", r"unet/config\.json: No such file"),
        ("unet/diffusion_pytorch_model.safetensors", r"unet holds no weights .*there is config\.json"),
        ("tokenizer/vocab.json", r"tokenizer holds neither"),
        ("scheduler/scheduler_config.json", "scheduler_config.json: No such file"),
    ],
)
def test_a_missing_file_is_named(folder_of: FolderOf, tmp_path: Path, gone: str, message: str) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    (folder / gone).unlink()
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 200_000, '{"a": 1, "a": 2}'])
def test_a_damaged_json_file(folder_of: FolderOf, tmp_path: Path, content: str) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    (folder / "unet" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"unet/config\.json (is not JSON|holds a list)"):
        open_checkpoint(folder)


def test_a_safety_checker_is_taken_or_left_out(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1_checked"), tmp_path)
    taken = open_checkpoint(folder)
    assert taken.notes == ()
    assert taken.settings["feature_extractor.json"]["rescale"] == 1 / 255
    left_out = open_checkpoint(folder, safety_checker=False)
    assert left_out.notes == ("the safety checker is left out",)
    assert {*taken.components} - {*left_out.components} == {"safety_checker"}
    _edit(folder / "model_index.json", feature_extractor=[None, None])
    shutil.rmtree(folder / "feature_extractor")
    with pytest.raises(CheckpointError, match="the safety checker takes 32 pixels"):
        open_checkpoint(folder)
    _edit(folder / "model_index.json", safety_checker=["stable_diffusion", "OtherChecker"])
    with pytest.raises(CheckpointError, match=r"the class OtherChecker.*--no-safety-checker"):
        open_checkpoint(folder)
    _edit(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    shutil.rmtree(folder / "safety_checker")
    with pytest.raises(CheckpointError, match="--no-safety-checker"):
        open_checkpoint(folder)
    _edit(folder / "model_index.json", safety_checker=[None, None])
    with pytest.raises(UsageError, match="no safety checker"):
        open_checkpoint(folder, safety_checker=True)


def test_a_safety_checker_as_it_is_published(folder_of: FolderOf, tmp_path: Path) -> None:
    """Weights as transformers before 5.6 named them, beside a buffer; a config that says some things twice."""
    plain = folder_of("sd1_checked")
    folder = _copy(plain, tmp_path)
    file = folder / "safety_checker" / "model.safetensors"
    named = {name.replace("vision_model.", "vision_model.vision_model."): t for name, t in load_file(file).items()}
    save_file(named | {"vision_model.vision_model.embeddings.position_ids": torch.arange(17)[None]}, file)
    config = json.loads((plain / "safety_checker" / "config.json").read_text())["vision_config"]
    given = {name: value for name, value in config.items() if name not in ("hidden_act", "layer_norm_eps")}
    _edit(folder / "safety_checker" / "config.json", vision_config={"num_hidden_layers": 99}, vision_config_dict=given)
    old, new = (open_checkpoint(path).components["safety_checker"] for path in (folder, plain))
    assert {*old.tensors} == {*new.tensors}
    assert old.config == new.config


def test_sdxl_has_no_safety_checker(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    _edit(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert open_checkpoint(folder).notes == ("the safety checker is left out: pipelines of SDXL have none",)


def test_the_pad_token_of_sd2s_published_tokenizer(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))
    _edit(folder / "tokenizer" / "tokenizer_config.json", pad_token={"content": EOS})
    assert open_checkpoint(folder).pad_tokens == {"tokenizer": "!"}
    _edit(folder / "tokenizer" / "tokenizer_config.json", added_tokens_decoder={})
    assert open_checkpoint(folder).pad_tokens == {"tokenizer": EOS}


def test_another_tokenizer_and_prediction_type(folder_of: FolderOf) -> None:
    other = folder_of("sd1") / "tokenizer"
    checkpoint = open_checkpoint(folder_of("sdxl"), tokenizer=other, prediction_type="v_prediction")
    assert checkpoint.tokenizers == {"tokenizer": other, "tokenizer_2": other}
    assert checkpoint.pad_tokens == {"tokenizer": EOS, "tokenizer_2": "!"}
    assert checkpoint.scheduler["prediction_type"] == "v_prediction"
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        open_checkpoint(folder_of("sdxl"), tokenizer=folder_of("sd1") / "unet")


def test_another_vae(folder_of: FolderOf, tmp_path: Path) -> None:
    other = folder_of("sdxl")
    plain = open_checkpoint(folder_of("sd1"))
    for source in (other, other / "vae"):
        checkpoint = open_checkpoint(folder_of("sd1"), vae=source)
        same_as(checkpoint.components["vae"], AutoencoderKL.from_pretrained(other / "vae"))
        assert checkpoint.components["unet"] == plain.components["unet"]
    folder = _copy(folder_of("sd1"), tmp_path)
    shutil.rmtree(folder / "vae")
    assert open_checkpoint(folder, vae=other).components["vae"].config["scaling_factor"] == 0.13025
    with pytest.raises(CheckpointError, match="holds a ControlNetModel, which cannot be a vae"):
        open_checkpoint(folder, vae=folder_of("controlnet_sd"))


@pytest.mark.parametrize("name", ["controlnet_sd", "controlnet_sdxl"])
def test_a_controlnet(folder_of: FolderOf, tmp_path: Path, name: str) -> None:
    folder = folder_of(name)
    component = open_controlnet(folder)
    assert component.name == "controlnet"
    assert component.file == folder / "diffusion_pytorch_model.safetensors"
    same_as(component, ControlNetModel.from_pretrained(folder))
    broken = _copy(folder, tmp_path)
    weights = load_file(broken / "diffusion_pytorch_model.safetensors")
    del weights["controlnet_mid_block.bias"]
    save_file(weights, broken / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"'controlnet_mid_block\.bias' is missing"):
        open_controlnet(broken)


def test_a_controlnet_inside_a_pipeline(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    shutil.copytree(folder_of("controlnet_sd"), folder / "controlnet")
    _edit(folder / "model_index.json", controlnet=["diffusers", "ControlNetModel"])
    assert set(open_checkpoint(folder).components) == {"unet", "vae", "text_encoder", "controlnet"}
    assert open_controlnet(folder) == open_checkpoint(folder).components["controlnet"]


def test_several_controlnets_inside_a_pipeline(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = _copy(folder_of("sd1"), tmp_path)
    nets = [ControlNetModel.from_pretrained(folder_of("controlnet_sd")) for _ in range(3)]
    for i, net in enumerate(nets):
        net.conv_in.bias.data.fill_(i)
    several = MultiControlNetModel(nets)
    several.save_pretrained(str(folder / "controlnet"))
    _edit(folder / "model_index.json", controlnet=["diffusers", "MultiControlNetModel"])
    rest, own = open_checkpoint(folder).apart()
    assert set(rest.components) == {"unet", "vae", "text_encoder"}
    assert [net.name for net in own] == ["controlnet", "controlnet_2", "controlnet_3"]
    for component, net in zip(own, nets, strict=True):
        same_as(component, net)


def test_one_for_the_other(folder_of: FolderOf) -> None:
    with pytest.raises(CheckpointError, match=r"is one component \(config\.json\)"):
        open_checkpoint(folder_of("controlnet_sd"))
    with pytest.raises(CheckpointError, match="holds no controlnet"):
        open_controlnet(folder_of("sd1"))


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    for source in (tmp_path / "none", str(tmp_path / "none"), "./none.safetensors", "a b/c", "../x/y"):
        with pytest.raises(CheckpointError, match="there is no "):
            open_checkpoint(source, offline=True)
    with pytest.raises(CheckpointError, match="only nothing"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"name the file: .*model\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("model", [[], {"vocab": []}, {"vocab": {"a": "b"}}])
def test_a_damaged_tokenizer(folder_of: FolderOf, tmp_path: Path, model: Any) -> None:
    folder = _copy(folder_of("sdxl"), tmp_path)
    _edit(folder / "tokenizer" / "tokenizer.json", model=model)
    with pytest.raises(CheckpointError, match="tokenizer has no vocabulary"):
        open_checkpoint(folder)


def test_the_demo(folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "sdengine.export.checkpoint.open._DEMO"
    monkeypatch.setattr(place, folder_of("sdxl"))
    demo = open_checkpoint("demo")
    assert (demo.source, demo.family) == ("demo", "sdxl")
    monkeypatch.setattr(place, tmp_path)
    with pytest.raises(CheckpointError, match="this installation lacks the demo checkpoint"):
        open_checkpoint("demo")


def test_options_that_do_not_apply(folder_of: FolderOf) -> None:
    folder = folder_of("sd1")
    with pytest.raises(UsageError, match="revision goes with a name on the Hub"):
        open_checkpoint(folder, revision="main")
    with pytest.raises(UsageError, match="config goes with a single file"):
        open_checkpoint(folder, config=folder)
    with pytest.raises(UsageError, match="did you mean 'v_prediction'"):
        open_checkpoint(folder, prediction_type="v-prediction")
    with pytest.raises(UsageError, match="config goes with a single file"):
        open_controlnet(folder_of("controlnet_sd"), config=folder)
