"""Every layout of a LoRA file says the same: read against diffusers where it reads the file, and against formulas."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sdengine.engines.lora import read_lora
from sdengine.engines.nets.ldm_names import ldm_modules
from sdengine.export.checkpoint.ldm_unet import unet_names

from ...bundles import checkpoint_of
from .networks import Weights, flat, kohya_lora, merged, modules_of, networks_of, weights_of

F32 = NDArray[np.float32]


def fused(kind: str, file: Path, scale: float = 1.0, **settings: Any) -> Weights:
    """Return the weights that diffusers makes of a LoRA."""
    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint_of(kind))
    pipe.load_lora_weights(str(file), adapter_name="a", **settings)
    pipe.set_adapters(["a"], [scale])
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    states = {}
    for name in networks_of(kind):
        state = getattr(pipe, name).state_dict()
        own = {key: state[key if key in state else key.removeprefix("text_model.")] for key in weights_of(kind)[name]}
        states[name] = {key: value.numpy() for key, value in own.items()}
    return states


def same(ours: Weights, theirs: Weights, *, but: tuple[str, ...] = ()) -> None:
    for network, weights in ours.items():
        for name, weight in weights.items():
            if not name.startswith(but or ("-",)):
                np.testing.assert_allclose(weight, theirs[network][name], atol=1e-5, err_msg=f"{network} {name}")


@pytest.mark.parametrize(("kind", "ldm"), [("sd1", False), ("sd2", False), ("sdxl", True)])
def test_kohya_as_diffusers_reads_it(kind: str, ldm: bool, tmp_path: Path) -> None:
    file = kohya_lora(kind, tmp_path / "a.safetensors", ldm=ldm)
    ours = merged(kind, (file, 0.7))
    assert {name: len(weights) for name, weights in ours.items()} == {
        name: len(modules_of(kind, name)) for name in networks_of(kind)
    }
    same(ours, fused(kind, file, 0.7))


def from_kohya(kind: str, file: Path, rename: Callable[[str, str, str], str]) -> dict[str, F32]:
    """Write the tensors of a kohya file under other names."""
    stored, renamed = load_file(file), {}
    for network in networks_of(kind):
        for module in modules_of(kind, network):
            for part in ("lora_down.weight", "lora_up.weight", "alpha"):
                old = stored.get(f"{flat(kind, network, module)}.{part}")
                if old is not None:
                    renamed[rename(network, module, part)] = old
    assert len(renamed) == len(stored)
    return renamed


_PEFT = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight", "alpha": "alpha"}


def _old(network: str, module: str, part: str) -> str:
    """diffusers before PEFT."""
    end = {"lora_down.weight": "down.weight", "lora_up.weight": "up.weight", "alpha": "alpha"}[part]
    before, _, last = module.removesuffix(".0").rpartition(".")
    if before.endswith((".attn1", ".attn2")):
        return f"{network}.{before}.processor.{last}_lora.{end}"
    if network == "unet":
        return f"{network}.{module}.lora.{end}"
    return f"{network}.{module}.lora_linear_layer.{end}"


LAYOUTS: dict[str, Callable[[str, str, str], str]] = {
    "peft": lambda network, module, part: f"{network}.{module}.{_PEFT[part]}",
    "peft, adapter named": lambda n, m, p: f"{n}.{m}.{_PEFT[p].replace('.weight', '.default.weight')}",
    "peft without text_model": lambda n, m, p: f"{n}.{m.removeprefix('text_model.')}.{_PEFT[p]}",
    "diffusers before peft": _old,
    "text encoder before peft": lambda n, m, p: (
        _old(n, m, p)
        .replace("q_proj.lora_linear_layer", "to_q_lora")
        .replace("out_proj.lora_linear_layer", "to_out_lora")
    ),
    "lycoris": lambda n, m, p: f"{'lycoris' if n == 'unet' else 'lora_te'}_{m.replace('.', '_')}.{p}",
    "comfyui": lambda n, m, p: (
        f"diffusion_model.{ldm_modules(modules_of('sd1'))[m]}.{p}"
        if n == "unet"
        else f"text_encoders.clip_l.transformer.{m}.{p}"
    ),
    "onetrainer": lambda n, m, p: f"{'lora_unet' if n == 'unet' else 'lora_te'}.{m}.{p}",
    "onetrainer, omi": lambda n, m, p: (
        f"unet.{ldm_modules(modules_of('sd1'))[m]}.{p}" if n == "unet" else f"clip_l.{m}.{p}"
    ),
    "kohya with ldm names": lambda n, m, p: f"{flat('sd1', n, m, ldm=True)}.{p}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_what_kohya_s_says(layout: str, tmp_path: Path) -> None:
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    other = tmp_path / "b.safetensors"
    save_file(from_kohya("sd1", file, LAYOUTS[layout]), other)
    expected, read = merged("sd1", file), merged("sd1", other)
    assert {n: sorted(w) for n, w in read.items()} == {n: sorted(w) for n, w in expected.items()}
    same(read, expected)


def test_torch_save_and_half_precision(tmp_path: Path) -> None:
    stored = load_file(kohya_lora("sd1", tmp_path / "a.safetensors"))
    torch.save({k: torch.from_numpy(v) for k, v in stored.items()}, tmp_path / "a.pt")
    assert all(
        map(np.array_equal, *(merged("sd1", tmp_path / f"a.{e}")["unet"].values() for e in ("safetensors", "pt")))
    )
    from safetensors.torch import save_file as save_torch

    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float16):
        low = {k: torch.from_numpy(v).to(dtype) for k, v in stored.items()}
        save_torch(low, tmp_path / "low.safetensors")
        save_file({k: v.float().numpy() for k, v in low.items()}, tmp_path / "same.safetensors")
        same(merged("sd1", tmp_path / "low.safetensors"), merged("sd1", tmp_path / "same.safetensors"))


def test_diffusers_own_files_with_metadata(tmp_path: Path) -> None:
    """Rank-stabilised, with a rank and an alpha of its own for some modules, in the header alone."""
    from peft import LoraConfig

    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint_of("sd1"))
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["to_q", "to_v", "to_out.0", "conv1", "proj_in"],
        rank_pattern={"mid_block.attentions.0.proj_in": 2},
        alpha_pattern={"mid_block.attentions.0.proj_in": 5},
        init_lora_weights=False,
        use_rslora=True,
    )
    pipe.unet.add_adapter(config, "a")
    pipe.text_encoder.add_adapter(
        LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], init_lora_weights=False), "a"
    )
    from peft.utils import get_peft_model_state_dict as state_of

    pipe.save_lora_weights(
        tmp_path,
        unet_lora_layers=state_of(pipe.unet, adapter_name="a"),
        text_encoder_lora_layers=state_of(pipe.text_encoder, adapter_name="a"),
        unet_lora_adapter_metadata=pipe.unet.peft_config["a"].to_dict(),
        text_encoder_lora_adapter_metadata=pipe.text_encoder.peft_config["a"].to_dict(),
    )
    ours = merged("sd1", tmp_path)
    assert set(ours) == {"unet", "text_encoder"}
    same(ours, fused("sd1", tmp_path))
    down = weights_of("sd1")["unet"]["mid_block.attentions.0.proj_in.weight"]
    product = ours["unet"]["mid_block.attentions.0.proj_in.weight"] - down
    stored = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    a, b = (stored[f"unet.mid_block.attentions.0.proj_in.lora_{x}.weight"] for x in "AB")
    np.testing.assert_allclose(product[..., 0, 0], 5 / math.sqrt(2) * (b[..., 0, 0] @ a[..., 0, 0]), atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_a_folder_of_peft(dora: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint_of("sd1"))
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q", "to_v", "conv1"], init_lora_weights=False, use_dora=dora
    )
    model: Any = get_peft_model(pipe.unet, config)
    random = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=random)
    model.save_pretrained(tmp_path / "peft")
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["lora_alpha"] == 6
    ours = merged("sd1", tmp_path / "peft")
    theirs = {name: value.numpy() for name, value in model.merge_and_unload().state_dict().items()}
    same(ours, {"unet": theirs})
    assert len(ours["unet"]) == sum("to_q" in m or "to_v" in m or m.endswith("conv1") for m in modules_of("sd1"))


def test_alphas(tmp_path: Path) -> None:
    """Without an alpha, or with one of 0, the factor is 1; of mixed ranks each counts its own."""
    module = "mid_block.attentions.0.proj_in"
    name, base = flat("sd1", "unet", module), weights_of("sd1")["unet"][f"{module}.weight"]
    random = np.random.default_rng(0)
    up, down = random.normal(size=(base.shape[0], 2)), random.normal(size=(2, base.shape[1]))
    for alpha, factor in ((None, 1.0), (0.0, 1.0), (1.0, 0.5), (8.0, 4.0)):
        tensors = {f"{name}.lora_up.weight": up.astype(np.float32), f"{name}.lora_down.weight": down.astype(np.float32)}
        if alpha is not None:
            tensors[f"{name}.alpha"] = np.asarray(alpha, np.float32)
        save_file(tensors, tmp_path / "a.safetensors", {"ss_network_alpha": "100", "ss_network_dim": "2"})
        made = merged("sd1", tmp_path / "a.safetensors")["unet"][f"{module}.weight"]
        np.testing.assert_allclose(made, base + (factor * up @ down).reshape(base.shape), atol=1e-5)


def test_matrices_and_convolutions_of_one_by_one_stand_for_each_other(tmp_path: Path) -> None:
    linear = kohya_lora("sd2", tmp_path / "a.safetensors", network_names=("unet",))
    stored = load_file(linear)
    wider = {k: v[..., None, None] if "proj_in" in k and v.ndim == 2 else v for k, v in stored.items()}
    save_file(wider, tmp_path / "b.safetensors")
    same(merged("sd2", linear), merged("sd2", tmp_path / "b.safetensors"))


def test_an_inpainting_unet_takes_loras_of_others(tmp_path: Path) -> None:
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    ours, of_others = merged("sd_inpaint", file)["unet"], merged("sd1", file)["unet"]
    base, plain = weights_of("sd_inpaint")["unet"]["conv_in.weight"], weights_of("sd1")["unet"]["conv_in.weight"]
    added = ours["conv_in.weight"] - base
    assert not added[:, 4:].any()
    assert "only the latents' channels change" in read_lora(file, networks_of("sd_inpaint")).notes[0]
    assert not read_lora(file, networks_of("sd1")).notes
    np.testing.assert_allclose(added[:, :4], of_others["conv_in.weight"] - plain, atol=1e-5)


def test_what_is_read_is_identified(tmp_path: Path) -> None:
    networks = networks_of("sd1")
    first, again, other = (
        read_lora(kohya_lora("sd1", tmp_path / f"{i}.safetensors", seed=seed), networks)
        for i, seed in enumerate((0, 0, 1))
    )
    assert first.sha256 == again.sha256 != other.sha256
    assert (first.name, first.networks, first.kinds) == ("0", ("text_encoder", "unet"), ("LoRA",))


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
def test_ldm_names_are_those_that_checkpoints_are_read_by(kind: str) -> None:
    shapes = networks_of(kind)["unet"]
    modules = dict.fromkeys(name.rpartition(".")[0] for name in shapes)
    ldm = ldm_modules(modules)
    assert set(ldm) == set(modules)
    names = {f"{ldm[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": name for name in shapes}
    assert unet_names(names) == names
