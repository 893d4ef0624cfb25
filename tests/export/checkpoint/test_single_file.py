import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, EDMEulerScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from sdengine.engines.errors import CheckpointError, UsageError
from sdengine.export.checkpoint import Checkpoint, CheckpointComponent, open_checkpoint, open_controlnet
from sdengine.runtime.schedule import make_schedule
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.checkpoints import randomise
from tests.clip_tokenizer import EOS, save_tokenizer, vocabulary
from tests.ldm_layout import controlnet_to_ldm, single_file, vae_to_ldm, write_single_file

FolderOf = Callable[[str], Path]
Modules = dict[str, Any]

FAMILIES = {
    "sd1": "sd1",
    "sd2": "sd2",
    "sdxl": "sdxl",
    "sdxl_refiner": "sdxl-refiner",
    "sd_inpaint": "sd1",
    "sdxl_inpaint": "sdxl",
}
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")

# With the constants of the original training code: 32 groups, 8 heads (SD 1) or heads of width 64.
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 64, "attention_head_dim": 8, "block_out_channels": (32, 64)},
    "sd2": {
        "cross_attention_dim": 64,
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
        "block_out_channels": (64, 128),
    },
    "sdxl": {
        "cross_attention_dim": 64 + 128,
        "attention_head_dim": (1, 1, 2),
        "transformer_layers_per_block": (1, 2, 3),
        "block_out_channels": (64, 64, 128),
        "projection_class_embeddings_input_dim": 6 * 256 + 96,
    },
    "sdxl-refiner": {
        "cross_attention_dim": 128,
        "attention_head_dim": (1, 1, 2),
        "transformer_layers_per_block": 2,
        "block_out_channels": (64, 64, 128),
        "projection_class_embeddings_input_dim": 5 * 256 + 96,
    },
}
BLOCKS = {
    "sd1": (CROSS, PLAIN),
    "sd2": (CROSS, PLAIN),
    "sdxl": (PLAIN, CROSS, CROSS),
    "sdxl-refiner": (PLAIN, CROSS, PLAIN),
}


def _unet_options(family: str) -> dict[str, Any]:
    size = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True}
    return {
        **(size if family.startswith("sdxl") else {}),
        **UNETS[family],
        "down_block_types": tuple(down for down, _ in BLOCKS[family]),
        "layers_per_block": 1 if family == "sdxl" else 2,
    }


def _text(kind: type, width: int, layers: int, act: str) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(vocabulary()),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            projection_dim=96,
            hidden_act=act,
            bos_token_id=0,
            eos_token_id=2,
        )
    )


def _modules(family: str, *, in_channels: int = 4) -> Modules:
    torch.manual_seed(0)
    up = tuple(up for _, up in reversed(BLOCKS[family]))
    options = _unet_options(family) | {"up_block_types": up, "in_channels": in_channels}
    modules: Modules = {
        "unet": UNet2DConditionModel(**options),
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 64),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=2,
        ),
    }
    if family != "sdxl-refiner":
        modules["text_encoder"] = _text(CLIPTextModel, 64, 2, "gelu" if family == "sd2" else "quick_gelu")
    if family.startswith("sdxl"):
        modules["text_encoder_2"] = _text(CLIPTextModelWithProjection, 128, 3, "gelu")
    for module in modules.values():
        randomise(module, torch.Generator().manual_seed(1))
    return modules


def _state(name: str, module: Any) -> dict[str, torch.Tensor]:
    bare = name.startswith("text") and not hasattr(module, "text_model")
    return {f"text_model.{n}" if bare else n: t.clone() for n, t in module.state_dict().items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def modules_of() -> Callable[[str], Modules]:
    built: dict[str, Modules] = {}

    def modules(family: str) -> Modules:
        return built.setdefault(family, built.get(family) or _modules(family))

    return modules


def _file_tensors(family: str, modules: Modules) -> dict[str, torch.Tensor]:
    tensors = single_file(family, {name: (_state(name, m), m.config) for name, m in modules.items() if name != "text"})
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _same(component: CheckpointComponent, module: Any) -> None:
    state = _state(component.name, module)
    assert set(component.tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(component.tensors[name].read(), tensor.numpy(), err_msg=name)


def _same_config(component: CheckpointComponent, module: Any) -> None:
    """What was inferred is what the module was built with; where all levels agree, a number stands for a list."""
    built = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    for option, value in component.config.items():
        if option in ("_class_name", "architectures", "sample_size", "model_type", "upcast_attention"):
            continue
        if option == "projection_dim" and "text_projection.weight" not in component.tensors:
            continue
        expected = built[option]
        if isinstance(expected, (tuple, list)) and not isinstance(value, list):
            expected = expected[0] if len(set(expected)) == 1 else expected
        assert value == (list(expected) if isinstance(expected, tuple) else expected), option


@pytest.mark.parametrize(
    ("family", "suffix"), [*((f, ".safetensors") for f in UNETS), ("sd1", ".ckpt"), ("sdxl", ".ckpt")]
)
def test_each_family_in_the_original_layout(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules], family: str, suffix: str
) -> None:
    modules = modules_of(family)
    tensors = _file_tensors(family, modules)
    if suffix == ".ckpt":
        torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "model.ckpt")
    else:
        save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path / f"model{suffix}", tokenizer=tokenizer, offline=True)
    assert checkpoint.family == family
    assert set(checkpoint.components) == set(modules)
    for name, module in modules.items():
        component = checkpoint.components[name]
        assert component.class_name == type(module).__name__
        assert component.file is None
        _same(component, module)
        if name != "vae":
            _same_config(component, module)
    scaling = 0.13025 if family.startswith("sdxl") else 0.18215
    assert checkpoint.components["vae"].config["scaling_factor"] == scaling
    pads = {"tokenizer": EOS, "tokenizer_2": "!"} if family == "sdxl" else {}
    pads = pads or {"sd1": {"tokenizer": EOS}, "sd2": {"tokenizer": "!"}}.get(family, {"tokenizer_2": "!"})
    assert checkpoint.pad_tokens == pads
    assert checkpoint.tokenizers == dict.fromkeys(pads, tokenizer)


def test_inferred_vae_config(tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]) -> None:
    save_file(_file_tensors("sd1", modules_of("sd1")), tmp_path / "model.safetensors")
    vae = open_checkpoint(tmp_path / "model.safetensors", tokenizer=tokenizer).components["vae"]
    _same_config(vae, modules_of("sd1")["vae"])


@pytest.mark.parametrize(("name", "suffix"), [*((n, ".safetensors") for n in FAMILIES), ("sdxl", ".ckpt")])
def test_given_configs_serve_networks_of_any_shape(folder_of: FolderOf, tmp_path: Path, name: str, suffix: str) -> None:
    folder = folder_of(name)
    file = write_single_file(folder, tmp_path / f"model{suffix}", FAMILIES[name])
    single = open_checkpoint(file, config=folder, offline=True)
    expected = open_checkpoint(folder)
    assert single.family == expected.family == FAMILIES[name]
    assert single.scheduler == expected.scheduler
    assert single.notes == ()
    assert single.tokenizers == expected.tokenizers
    assert single.pad_tokens == expected.pad_tokens
    assert set(single.components) == set(expected.components)
    for part, component in expected.components.items():
        assert single.components[part].config == component.config
        assert set(single.components[part].tensors) == set(component.tensors)
        for tensor, source in component.tensors.items():
            np.testing.assert_array_equal(single.components[part].tensors[tensor].read(), source.read())


def test_weights_that_inference_does_not_need(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]
) -> None:
    tensors = _file_tensors("sd1", modules_of("sd1"))
    clean = _open(tmp_path, tensors, tokenizer)
    assert clean.notes == ()
    tensors |= {
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.logit_scale": torch.ones(()),
        "first_stage_model.loss.discriminator.main.0.weight": torch.ones(2),
        "betas": torch.ones(1000),
        "sqrt_alphas_cumprod": torch.ones(1000),
        "model_ema.decay": torch.ones(()),
        "model_ema.diffusion_modelout0bias": torch.ones(2),
        "embedding_manager.placeholder": torch.ones(2),
    }
    full = _open(tmp_path, tensors, tokenizer)
    for name, component in clean.components.items():
        assert set(full.components[name].tensors) == set(component.tensors)
        assert full.components[name].config == component.config
    assert len(full.notes) == 2
    assert "model_ema" in full.notes[0]
    assert "1 tensors belong to no part and are left out: embedding_manager.placeholder" in full.notes[1]


def _open(folder: Path, tensors: dict[str, torch.Tensor], tokenizer: Path, **options: Any) -> Checkpoint:
    save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder / "model.safetensors", tokenizer=tokenizer, offline=True, **options)


def test_sd2_without_its_last_layer_and_projection(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]
) -> None:
    modules = dict(modules_of("sd2"))
    deep = _text(CLIPTextModel, 64, 24, "gelu")
    tensors = _file_tensors("sd2", modules | {"text_encoder": deep})
    tensors["cond_stage_model.model.text_projection"] = torch.ones(64, 96)
    tensors["cond_stage_model.model.logit_scale"] = torch.ones(())
    encoder = _open(tmp_path, tensors, tokenizer).components["text_encoder"]
    assert encoder.config["num_hidden_layers"] == 23
    expected = {name for name in _state("text_encoder", deep) if ".layers.23." not in name}
    assert set(encoder.tensors) == expected


def test_the_two_kinds_of_sd2(tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]) -> None:
    tensors = _file_tensors("sd2", modules_of("sd2"))
    large = ("DDIMScheduler", "v_prediction", 96, True)
    base = ("PNDMScheduler", "epsilon", 64, False)

    def kind(checkpoint: Checkpoint) -> tuple[Any, ...]:
        unet = checkpoint.components["unet"].config
        assert checkpoint.components["vae"].config["sample_size"] == 8 * int(str(unet["sample_size"]))
        scheduler = checkpoint.scheduler
        return scheduler["_class_name"], scheduler["prediction_type"], unet["sample_size"], unet["upcast_attention"]

    guessed = _open(tmp_path, tensors, tokenizer)
    assert kind(guessed) == large
    assert any("v_prediction" in note and "prediction_type=epsilon" in note for note in guessed.notes)
    for asked, expected in (("epsilon", base), ("v_prediction", large)):
        told = _open(tmp_path, tensors, tokenizer, prediction_type=asked)
        assert kind(told) == expected
        assert told.notes == ()
    assert kind(_open(tmp_path, tensors | {"global_step": torch.tensor(875000)}, tokenizer)) == base
    for step, expected in ((875000, base), (110000, large)):
        torch.save({"global_step": step, "state_dict": tensors}, tmp_path / "model.ckpt")
        assert kind(open_checkpoint(tmp_path / "model.ckpt", tokenizer=tokenizer)) == expected
    inpainting = _open(tmp_path, _file_tensors("sd2", _modules("sd2", in_channels=9)), tokenizer)
    assert kind(inpainting) == base
    assert inpainting.notes == ()


def test_sdxl_marked_as_v_prediction(tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]) -> None:
    tensors = _file_tensors("sdxl", modules_of("sdxl"))
    assert _open(tmp_path, tensors, tokenizer).scheduler["prediction_type"] == "epsilon"
    marked = _open(tmp_path, tensors | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, tokenizer)
    assert marked.scheduler["prediction_type"] == "v_prediction"
    assert marked.scheduler["rescale_betas_zero_snr"] is True
    assert len(marked.notes) == 2
    with pytest.raises(CheckpointError, match=r"EDM formulation of Playground 2\.5 \(edm_mean, edm_std\)"):
        _open(tmp_path, tensors | {"edm_mean": torch.ones(4), "edm_std": torch.ones(4)}, tokenizer)


def _table(last: float) -> torch.Tensor:
    return torch.linspace(0.999, last, 1000)


V, EPS = "v_prediction", "epsilon"


@pytest.mark.parametrize(
    ("metadata", "tensors", "prediction", "zero_snr", "notes"),
    [
        ({}, {}, EPS, False, []),
        ({"modelspec.prediction_type": "v"}, {}, V, False, ["modelspec.prediction_type=v"]),
        ({"modelspec.prediction_type": "v_prediction"}, {}, V, False, ["modelspec"]),
        ({"modelspec.prediction_type": "V-Prediction"}, {}, V, False, ["modelspec"]),
        ({"modelspec.prediction_type": "epsilon"}, {}, EPS, False, ["modelspec"]),
        ({"prediction_type": "v"}, {}, V, False, ["metadata prediction_type=v"]),
        ({"ss_v_parameterization": "True"}, {}, V, False, ["ss_v_parameterization=True"]),
        ({"ss_v_parameterization": "true", "ss_zero_terminal_snr": "True"}, {}, V, True, ["ss_v_", "ss_zero_terminal"]),
        ({"ss_v_parameterization": "False"}, {}, EPS, False, ["ss_v_parameterization=False"]),
        (
            {"ss_v_parameterization": "None", "modelspec.prediction_type": "flow"},
            {},
            EPS,
            False,
            ["=flow names no", "="],
        ),
        ({"modelspec.prediction_type": "v"}, {"alphas_cumprod": _table(0.0)}, V, True, ["modelspec", "alphas_cumprod"]),
        ({}, {"alphas_cumprod": _table(0.0)}, V, True, ["any signal", "alphas_cumprod"]),
        ({}, {"alphas_cumprod": _table(4.9e-8).double()}, V, True, ["any signal", "alphas_cumprod"]),
        ({}, {"sqrt_alphas_cumprod": _table(0.0).half()}, V, True, ["any signal", "sqrt_alphas_cumprod"]),
        ({}, {"alphas_cumprod": _table(0.00466)}, EPS, False, []),
        ({}, {"v_pred": torch.tensor([]), "alphas_cumprod": _table(0.00466)}, V, False, ["tensor v_pred"]),
        (
            {"ss_v_parameterization": "False", "modelspec.prediction_type": "v"},
            {},
            V,
            False,
            [
                "modelspec",
                r"contradicts itself: .*ss_v_parameterization=False says epsilon; .*--prediction-type decides",
            ],
        ),
        (
            {"modelspec.prediction_type": "epsilon"},
            {"v_pred": torch.tensor([])},
            V,
            False,
            ["tensor v_pred", r"contradicts itself: .*modelspec\.prediction_type=epsilon says epsilon"],
        ),
        (
            {"modelspec.prediction_type": "epsilon"},
            {"ztsnr": torch.tensor([])},
            EPS,
            False,
            ["modelspec", "tensor ztsnr says that its noise ends at zero SNR, which no prediction of epsilon can"],
        ),
        (
            {"ss_zero_terminal_snr": "True", "ss_v_parameterization": "True"},
            {"alphas_cumprod": _table(0.00466)},
            V,
            True,
            [
                "ss_v",
                r"contradicts itself: .*ss_zero_terminal_snr=True.*alphas_cumprod, which ends in 0\.00466",
                "zero",
            ],
        ),
    ],
)
@pytest.mark.parametrize("family", ["sdxl", "sd1"])
def test_what_a_file_says_about_its_prediction(
    tmp_path: Path,
    tokenizer: Path,
    modules_of: Callable[[str], Modules],
    family: str,
    metadata: dict[str, str],
    tensors: dict[str, torch.Tensor],
    prediction: str,
    zero_snr: bool,
    notes: list[str],
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(_file_tensors(family, modules_of(family)) | tensors, file, metadata)
    checkpoint = open_checkpoint(file, tokenizer=tokenizer, offline=True)
    scheduler = checkpoint.scheduler
    assert scheduler["prediction_type"] == prediction
    assert scheduler.get("rescale_betas_zero_snr", False) is zero_snr
    # PNDM of diffusers has no such option.
    assert not zero_snr or scheduler["_class_name"] in ("EulerDiscreteScheduler", "DDIMScheduler")
    assert len(checkpoint.notes) == len(notes), checkpoint.notes
    for note, expected in zip(checkpoint.notes, notes, strict=True):
        assert re.search(expected, note), note


def test_what_is_asked_decides_over_what_a_file_says(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]
) -> None:
    tensors = _file_tensors("sdxl", modules_of("sdxl")) | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    asked = _open(tmp_path, tensors, tokenizer, prediction_type="epsilon")
    assert asked.scheduler["prediction_type"] == "epsilon"
    assert "rescale_betas_zero_snr" not in asked.scheduler
    assert "the file contradicts --prediction-type: the tensor v_pred says v_prediction" in asked.notes[0]
    same = _open(tmp_path, tensors, tokenizer, prediction_type="v_prediction")
    assert same.scheduler["rescale_betas_zero_snr"] is True
    assert len(same.notes) == 1


def test_marks_against_a_given_config(folder_of: FolderOf, tmp_path: Path) -> None:
    file = write_single_file(folder_of("sdxl"), tmp_path / "model.safetensors", "sdxl")
    save_file(load_file(file) | {"v_pred": torch.tensor([])}, file)
    checkpoint = open_checkpoint(file, config=folder_of("sdxl"), offline=True)
    assert checkpoint.scheduler["prediction_type"] == "epsilon"
    assert (
        "the given scheduler config (epsilon) is used, though of the file: the prediction type" in checkpoint.notes[0]
    )


@pytest.mark.parametrize("sd2", ["v", "epsilon"])
def test_sd2_by_its_metadata(tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules], sd2: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file(_file_tensors("sd2", modules_of("sd2")), file, {"modelspec.prediction_type": sd2})
    checkpoint = open_checkpoint(file, tokenizer=tokenizer, offline=True)
    assert checkpoint.components["unet"].config["sample_size"] == (96 if sd2 == "v" else 64)
    assert checkpoint.scheduler["prediction_type"] == (V if sd2 == "v" else EPS)


@pytest.mark.parametrize(
    ("marks", "low", "high"),
    [
        ({"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)}, 0.002, 120.0),
        ({"edm_vpred.sigma_max": torch.tensor([80.0]).half()}, 0.002, 80.0),
        ({"edm_vpred.sigma_min": torch.tensor(0.01)}, 0.01, 120.0),
    ],
)
def test_cosxl(
    tmp_path: Path,
    tokenizer: Path,
    modules_of: Callable[[str], Modules],
    marks: dict[str, torch.Tensor],
    low: float,
    high: float,
) -> None:
    """As diffusers' documentation loads it; diffusers' own ``from_single_file`` takes it for SDXL."""
    checkpoint = _open(tmp_path, _file_tensors("sdxl", modules_of("sdxl")) | marks, tokenizer)
    assert checkpoint.family == "sdxl"
    given = {name: value for name, value in checkpoint.scheduler.items() if name != "_class_name"}
    theirs = EDMEulerScheduler(
        sigma_min=low, sigma_max=high, sigma_data=1.0, prediction_type="v_prediction", sigma_schedule="exponential"
    )
    assert checkpoint.scheduler["_class_name"] == "EDMEulerScheduler"
    for name, value in given.items():
        expected = theirs.config[name]
        assert value == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-3)), name
    assert len(checkpoint.notes) == 1
    theirs.set_timesteps(5)
    schedule = make_schedule(checkpoint.scheduler, num_inference_steps=5)
    np.testing.assert_allclose(schedule.timesteps, theirs.timesteps, rtol=1e-3)


def test_edm_marks_that_say_nothing_sensible(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]
) -> None:
    tensors = _file_tensors("sdxl", modules_of("sdxl"))
    with pytest.raises(CheckpointError, match=r"sigma_min and sigma_max are 0\.002 and nan"):
        _open(tmp_path, tensors | {"edm_vpred.sigma_max": torch.tensor(float("nan"))}, tokenizer)


@pytest.mark.parametrize(
    "name",
    [
        "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.logit_scale",
        "conditioner.embedders.1.model.attn_mask",
        "conditioner.embedders.0.logit_scale",
        "conditioner.embedders.0.transformer.text_projection.weight",
        "conditioner.embedders.0.transformer.logit_scale",
        "conditioner.embedders.1.model.embeddings.position_ids",
        "first_stage_model.encoder.norm.num_batches_tracked",
        "model.diffusion_model.position_ids",
    ],
)
def test_buffers_are_no_weights(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules], name: str
) -> None:
    tensors = _file_tensors("sdxl", modules_of("sdxl"))
    clean = _open(tmp_path, tensors, tokenizer)
    shape = (64, 64) if "projection" in name else (1, 77)
    full = _open(tmp_path, tensors | {name: torch.ones(shape)}, tokenizer)
    assert full.notes == ()
    for part, component in clean.components.items():
        assert set(full.components[part].tensors) == set(component.tensors)
        assert full.components[part].config == component.config


def test_inpainting(tmp_path: Path, tokenizer: Path) -> None:
    modules = _modules("sd1", in_channels=9)
    checkpoint = _open(tmp_path, _file_tensors("sd1", modules), tokenizer)
    assert checkpoint.components["unet"].config["in_channels"] == 9
    modules = _modules("sd1", in_channels=8)
    with pytest.raises(CheckpointError, match=r"8 channels into 4.*\(instructions, depth, upscaling\)"):
        _open(tmp_path, _file_tensors("sd1", modules), tokenizer)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("prefix", ["control_model.", "", None])
def test_controlnets(tmp_path: Path, family: str, prefix: str | None) -> None:
    torch.manual_seed(0)
    net = ControlNetModel(**_unet_options(family), conditioning_embedding_out_channels=(4, 8, 12))
    randomise(net, torch.Generator().manual_seed(1))
    if prefix is None:  # diffusers' names, without a config
        tensors = dict(net.state_dict())
    else:
        tensors = {prefix + n: t.contiguous() for n, t in controlnet_to_ldm(net.state_dict(), net.config).items()}
    file = tmp_path / "net.safetensors"
    save_file(tensors, file)
    component = open_controlnet(file)
    _same(component, net)
    _same_config(component, net)
    assert component.file == (file if prefix is None else None)
    with pytest.raises(CheckpointError, match="it looks like a ControlNet: give it with --controlnet"):
        open_checkpoint(file)
    del tensors[next(name for name in tensors if "transformer_blocks.0.norm2.weight" in name)]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"controlnet \(.*net\.safetensors\): '.*norm2\.weight' is missing"):
        open_controlnet(file)


def test_a_controlnet_beside_its_unet(tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]) -> None:
    net = ControlNetModel(**_unet_options("sd1"), conditioning_embedding_out_channels=(4, 8, 12))
    control = {f"control_model.{n}": t for n, t in controlnet_to_ldm(net.state_dict(), net.config).items()}
    tensors = _file_tensors("sd1", modules_of("sd1")) | control
    _same(_open(tmp_path, tensors, tokenizer).components["controlnet"], net)
    _same(open_controlnet(tmp_path / "model.safetensors"), net)


@pytest.mark.parametrize("layout", ["first_stage_model.", "", "diffusers"])
def test_another_vae_from_a_file(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules], layout: str
) -> None:
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    if layout == "diffusers":
        tensors = dict(vae.state_dict())
    else:
        tensors = {layout + n: t.contiguous() for n, t in vae_to_ldm(vae.state_dict(), vae.config).items()}
    save_file(tensors | {f"{layout}loss.logvar": torch.ones(2)}, tmp_path / "vae.safetensors")
    base = _file_tensors("sdxl", modules_of("sdxl"))
    base = {name: tensor for name, tensor in base.items() if not name.startswith("first_stage_model.")}
    with pytest.raises(CheckpointError, match=r"recognised as sdxl: the VAE .* is missing; give one with --vae"):
        _open(tmp_path, base, tokenizer)
    if layout == "diffusers":
        save_file(tensors, tmp_path / "vae.safetensors")
    checkpoint = _open(tmp_path, base, tokenizer, vae=tmp_path / "vae.safetensors")
    _same(checkpoint.components["vae"], vae)
    assert checkpoint.components["vae"].config["scaling_factor"] == 0.13025
    assert any("scaling factor" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("input_blocks.1.0.in_layers.0", "input_blocks.1.0.inlayers.0"), r"unet .*'down_blocks\.0\.resnets\.0\.norm1"),
        (("input_blocks.4.", "input_blocks.40."), r"recognised as sd1: the weights of input_blocks\.4 are missing"),
        (("out.2.weight", "out.2.wait"), r"'conv_out\.weight' is missing"),
        (("time_embed.", "time_embedding."), r"4 weights are none of a UNet's: 'time_embedding\.0\.bias'"),
        (("decoder.conv_in.weight", "decoder.conv_inn.weight"), r"1 weights are none of a VAE's: 'decoder\.conv_inn"),
        (("first_stage_model.encoder.", "first_stage_model.encoded."), "weights are none of a VAE's"),
        (
            ("transformer.text_model.final_layer_norm.", "transformer.text_model.norm."),
            r"text_encoder .*missing",
        ),
    ],
)
def test_renamed_weights_are_named(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules], change: tuple[str, str], message: str
) -> None:
    tensors = {name.replace(*change): tensor for name, tensor in _file_tensors("sd1", modules_of("sd1")).items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        _open(tmp_path, tensors, tokenizer)
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["double_blocks.0.img_attn.qkv.weight"], r"seen were double_blocks\.0 \(1\); it looks like Flux"),
        (["joint_blocks.0.x.weight"], "Stable Diffusion 3"),
        (["lora_unet_down_blocks_0.alpha"], "a LoRA, which is not exported by itself: .*--lora"),
        (["unet.up_blocks.0.attentions.0.to_q.lora.down.weight"], "a LoRA, which is not exported by itself"),
        (["unet.down_blocks.0.to_q.lora_A.weight"], "a LoRA, which is not exported by itself"),
        (["lycoris_unet_x.hada_w1_a"], "a LoRA, which is not exported by itself"),
        (["emb_params"], "a textual inversion: give it to `sdengine run` with --textual-inversion"),
        (["clip_l", "clip_g"], "a textual inversion"),
        (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
        (["down_blocks.0.motion_modules.0.x"], "a motion module"),
        (["down_blocks.0.resnets.0.conv1.weight"], "one component of diffusers' layout"),
        (["encoder.conv_in.weight"], "a VAE: give it with --vae"),
        (["something.else"], r"of no known family.*seen were something\.else \(1\)$"),
        (["model.diffusion_model.input_blocks.0.0.weight"], r"with the text encoders of SD 1, SD 2, SDXL"),
    ],
)
def test_an_unknown_family(tmp_path: Path, tokenizer: Path, names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        _open(tmp_path, {name: torch.ones(1) for name in names}, tokenizer)


def test_heads_that_shapes_do_not_tell(folder_of: FolderOf, tmp_path: Path) -> None:
    file = write_single_file(folder_of("sdxl"), tmp_path / "model.safetensors", "sdxl")
    with pytest.raises(CheckpointError, match=r"24 wide, no multiple of 64.*config="):
        open_checkpoint(file, tokenizer=folder_of("sdxl"))


def test_levels_of_mixed_depth_need_a_config(
    tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]
) -> None:
    tensors = _file_tensors("sdxl", modules_of("sdxl"))
    kept = {n: t for n, t in tensors.items() if "output_blocks.0.1.transformer_blocks.2" not in n}
    with pytest.raises(CheckpointError, match=r"level 2 of the UNet has attention of different depths, \[2, 3\]"):
        _open(tmp_path, kept, tokenizer)


def test_options_that_do_not_apply(tmp_path: Path, tokenizer: Path, modules_of: Callable[[str], Modules]) -> None:
    tensors = _file_tensors("sd1", modules_of("sd1"))
    with pytest.raises(UsageError, match="variant goes with a folder"):
        _open(tmp_path, tensors, tokenizer, variant="fp16")
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is none of \.safetensors"):
        open_checkpoint(tmp_path / "model.gguf", tokenizer=tokenizer)
    with pytest.raises(CheckpointError, match=r"is no ControlNet"):
        open_controlnet(tmp_path / "model.safetensors")


def test_split_projections_are_byte_ranges_of_the_file(folder_of: FolderOf, tmp_path: Path) -> None:
    file = write_single_file(folder_of("sdxl"), tmp_path / "model.safetensors", "sdxl")
    encoder = open_checkpoint(file, config=folder_of("sdxl")).components["text_encoder_2"]
    turned = [name for name, tensor in encoder.tensors.items() if not tensor.verbatim]
    assert turned == ["text_projection.weight"]
    query = encoder.tensors["text_model.encoder.layers.1.self_attn.q_proj.weight"]
    stored = load_file(file)["conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"]
    assert query.name == "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"
    raw = file.read_bytes()[query.offset : query.offset + query.nbytes]
    assert raw == stored[:32].numpy().tobytes()
