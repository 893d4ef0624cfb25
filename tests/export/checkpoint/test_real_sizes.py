"""The published configurations at full size, on the meta device, against diffusers' own conversion."""

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, PriorTransformer, UNet2DConditionModel, VQModel
from diffusers.loaders import single_file_utils as oracle
from sdengine.export.checkpoint import CheckpointComponent, TensorSource, expected_shapes
from sdengine.export.checkpoint.convert import controlnet_component, text_component, unet_component, vae_component
from sdengine.export.checkpoint.families import FAMILIES, StoredEncoder
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.ldm_layout import controlnet_to_ldm, open_clip_from_clip, unet_to_ldm, vae_to_ldm

Weights = Mapping[str, torch.Tensor]

KINDS = {"sd15": "sd1", "sd15-inpaint": "sd1", "sd21": "sd2", "sdxl": "sdxl", "sdxl-refiner": "sdxl-refiner"}
CLASSES: dict[str, Any] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "ControlNetModel": ControlNetModel,
    "AutoencoderKL": AutoencoderKL,
    "PriorTransformer": PriorTransformer,
    "VQModel": VQModel,
}
TEXT: dict[str, Any] = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}


@pytest.fixture(scope="module")
def configs() -> Iterator[dict[str, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
        yield importlib.import_module("published_configs").KINDS


def _meta(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The oracle's state dict under a config, without memory; text encoders with ``text_model.`` in front."""
    with torch.device("meta"):
        if config.get("architectures") == ["CLIPVisionModelWithProjection"]:
            return dict(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).state_dict())
        if "architectures" in config:
            model = TEXT[config["architectures"][0]](CLIPTextConfig(**config))
            bare = not hasattr(model, "text_model")
            return {f"text_model.{n}" if bare else n: t for n, t in model.state_dict().items()}
        model = CLASSES[config["_class_name"]].from_config(config)
    return dict(model.state_dict())


def _sources(weights: Weights) -> dict[str, TensorSource]:
    """The same names and shapes as our reader would find them in a file."""
    return {
        name: TensorSource(file=Path("x.safetensors"), name=name, dtype="F32", shape=tuple(t.shape), offset=0, nbytes=0)
        for name, t in weights.items()
    }


def _agree(component: CheckpointComponent, published: Mapping[str, Any], oracles: Weights, ldm: Weights) -> None:
    """Names, shapes and provenance are diffusers', and the inferred config is the published one."""
    assert {n: t.shape for n, t in component.tensors.items()} == {n: tuple(t.shape) for n, t in oracles.items()}
    for name, tensor in oracles.items():
        if any(tensor is stored for stored in ldm.values()):
            assert ldm[component.tensors[name].name] is tensor, name
    for option, value in published.items():
        if option.startswith("_") or (option == "projection_dim" and "text_projection.weight" not in oracles):
            continue
        assert component.config.get(option, value) == value or not (component.config[option] or value), option


@pytest.mark.parametrize("kind", KINDS)
def test_unet(configs: dict[str, dict[str, Any]], kind: str) -> None:
    config = configs[kind]["unet"]
    ldm = {f"model.diffusion_model.{n}": t for n, t in unet_to_ldm(_meta(config), config).items()}
    converted = oracle.convert_ldm_unet_checkpoint(dict(ldm), config)
    bare = {n.removeprefix("model.diffusion_model."): t for n, t in ldm.items()}
    component = unet_component(_sources(bare), FAMILIES[KINDS[kind]], None)
    _agree(component, config, converted, bare)
    assert set(converted) == set(_meta(config))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_vae(configs: dict[str, dict[str, Any]], kind: str) -> None:
    config = configs[kind]["vae"]
    ldm = {f"first_stage_model.{n}": t for n, t in vae_to_ldm(_meta(config), config).items()}
    converted = oracle.convert_ldm_vae_checkpoint(dict(ldm), config)
    bare = {n.removeprefix("first_stage_model."): t for n, t in ldm.items()}
    component = vae_component(_sources(bare), FAMILIES[KINDS[kind]], None)
    _agree(component, config, converted, bare)
    assert set(converted) == set(_meta(config))


@pytest.mark.parametrize(("kind", "part"), [("sd21", "text_encoder"), ("sdxl", "text_encoder_2")])
def test_open_clip(configs: dict[str, dict[str, Any]], kind: str, part: str) -> None:
    config = configs[kind][part]
    layers = 24 if kind == "sd21" else 32
    deep = config | {"num_hidden_layers": layers}
    ldm = open_clip_from_clip(_meta(deep))
    if kind == "sd21":
        ldm["text_projection"] = torch.empty(1024, 1024, device="meta")
    ldm["logit_scale"] = torch.empty((), device="meta")
    prefix = {"sd21": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}[kind]
    text_model = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    converted = oracle.convert_open_clip_checkpoint(text_model, {prefix + n: t for n, t in ldm.items()}, prefix=prefix)
    encoder = StoredEncoder(name=part, prefix="", open_clip=True, penultimate=kind == "sd21")
    component = text_component(_sources(ldm), encoder, None)
    _agree(component, config, converted, ldm)
    assert set(converted) == set(_meta(config))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_clip(configs: dict[str, dict[str, Any]], kind: str) -> None:
    config = configs[kind]["text_encoder"]
    weights = _meta(config)
    encoder = StoredEncoder(name="text_encoder", prefix="", open_clip=False)
    component = text_component(_sources(weights), encoder, None)
    _agree(component, config, weights, weights)


@pytest.mark.parametrize("kind", ["controlnet-sd15", "controlnet-sdxl"])
def test_controlnet(configs: dict[str, dict[str, Any]], kind: str) -> None:
    config = configs[kind]["controlnet"]
    weights = _meta(config)
    ldm = controlnet_to_ldm(weights, config)
    component = controlnet_component(_sources(ldm), None)
    # diffusers converts no label_emb, which only SDXL has
    converted = {n: t for n, t in weights.items() if n.startswith("add_embedding.")}
    converted |= oracle.convert_controlnet_checkpoint({f"control_model.{n}": t for n, t in ldm.items()}, config)
    _agree(component, config, converted, ldm)
    assert set(converted) == set(weights)
    _agree(controlnet_component(_sources(weights), None), config, weights, weights)


def test_the_networks_have_the_weights_of_diffusers(configs: dict[str, dict[str, Any]]) -> None:
    seen: list[dict[str, Any]] = []
    for kind, parts in configs.items():
        for part, config in parts.items():
            if part in ("pipeline", "scheduler") or any(config is other for other in seen):
                continue
            seen.append(config)
            class_name = config.get("_class_name") or config["architectures"][0]
            component = CheckpointComponent(name=part, class_name=class_name, config=config, tensors={}, file=None)
            shapes = expected_shapes(component)
            assert shapes == {name: tuple(tensor.shape) for name, tensor in _meta(config).items()}, (kind, part)


def test_well_known_names_of_published_files(configs: dict[str, dict[str, Any]]) -> None:
    """The keys by which diffusers tells the families apart come out of the layout that the tests write."""
    sdxl = configs["sdxl"]
    assert oracle.CHECKPOINT_KEY_NAMES["v1"].removeprefix("model.diffusion_model.") in unet_to_ldm(
        _meta(configs["sd15"]["unet"]), configs["sd15"]["unet"]
    )
    encoder = open_clip_from_clip(_meta(sdxl["text_encoder_2"]))
    assert re.sub(r"^conditioner\.embedders\.1\.model\.", "", oracle.CHECKPOINT_KEY_NAMES["xl_base"]) in encoder
    assert oracle.CHECKPOINT_KEY_NAMES["open_clip_sdxl_refiner"].endswith(".text_projection")
    assert "text_projection" in encoder


@pytest.mark.parametrize("part", ["unet", "movq", "prior", "text_encoder", "image_encoder"])
def test_kandinsky(part: str, configs: dict[str, dict[str, Any]]) -> None:
    config = (configs["kandinsky22"] | configs["kandinsky22-prior"])[part]
    class_name = config.get("_class_name") or config["architectures"][0]
    ours = expected_shapes(CheckpointComponent(name=part, class_name=class_name, config=config, tensors={}, file=None))
    assert ours == {name: tuple(tensor.shape) for name, tensor in _meta(config).items()}
