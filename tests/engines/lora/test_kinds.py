"""LoRA's relatives, as LyCORIS makes and applies them, weight by weight."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sdengine.engines.lora import read_lora

from .networks import flat, merged, networks_of, weights_of

F32 = NDArray[np.float32]

MODULES = ("mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1", "mid_block.resnets.0.time_emb_proj")
NORM = "mid_block.resnets.0.norm1"


def module_of(name: str) -> torch.nn.Module:
    """Return a module of torch with the weights of the tiny SD 1's."""
    weights = weights_of("sd1")["unet"]
    weight, bias = torch.from_numpy(weights[f"{name}.weight"]), torch.from_numpy(weights[f"{name}.bias"])
    made: torch.nn.Module
    if name == NORM:
        made = torch.nn.GroupNorm(8, len(weight))
    elif weight.ndim == 2:
        made = torch.nn.Linear(weight.shape[1], len(weight))
    else:
        made = torch.nn.Conv2d(weight.shape[1], len(weight), weight.shape[2], padding=weight.shape[2] // 2)
    made.load_state_dict({"weight": weight, "bias": bias})
    return made


def weight_seen(wrapped: Any, module: torch.nn.Module) -> F32:
    """Return the weight that a wrapped module computes with, from what it makes of unit inputs."""
    if isinstance(module, torch.nn.Linear):
        inputs = torch.eye(module.in_features)
    else:
        assert isinstance(module, torch.nn.Conv2d)
        size = module.kernel_size[0]
        inputs = torch.zeros(module.in_channels, module.in_channels, size, size)
        inputs[range(module.in_channels), range(module.in_channels), size // 2, size // 2] = 1
    with torch.no_grad():
        outputs = module(inputs) - module(torch.zeros_like(inputs))
    return outputs.transpose(0, 1).flip(*range(2, outputs.ndim)).numpy() if outputs.ndim > 2 else outputs.T.numpy()


def lycoris_modules(algorithm: str, **options: Any) -> Iterator[tuple[str, torch.nn.Module, Any]]:
    """Wrap the modules as LyCORIS does, with random numbers in everything that it trains."""
    import lycoris.modules as kinds

    classes = {
        "lora": kinds.LoConModule,
        "loha": kinds.LohaModule,
        "lokr": kinds.LokrModule,
        "full": kinds.FullModule,
        "ia3": kinds.IA3Module,
    }
    random = torch.Generator().manual_seed(1)
    for name in MODULES:
        module = module_of(name)
        wrapped = classes[algorithm](flat("sd1", "unet", name), module, 1.0, **options)
        wrapped.apply_to()
        for part, parameter in wrapped.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            parameter.data = parameter.data * (1 + 0.2 * noise) if "dora" in part else parameter.data + 0.2 * noise
        yield name, module, wrapped


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"lora_dim": 3, "alpha": 2}),
    "lora, rank-stabilised": ("lora", {"lora_dim": 3, "alpha": 2, "rs_lora": True}),
    "tucker": ("lora", {"lora_dim": 3, "alpha": 2, "use_tucker": True}),
    "dora": ("lora", {"lora_dim": 3, "alpha": 2, "weight_decompose": True}),
    "dora by input": ("lora", {"lora_dim": 3, "alpha": 2, "weight_decompose": True, "wd_on_out": False}),
    "loha": ("loha", {"lora_dim": 3, "alpha": 2}),
    "loha tucker": ("loha", {"lora_dim": 3, "alpha": 2, "use_tucker": True}),
    "doha": ("loha", {"lora_dim": 3, "alpha": 2, "weight_decompose": True}),
    "lokr": ("lokr", {"lora_dim": 2, "alpha": 3, "factor": 4}),
    "lokr, both small": ("lokr", {"lora_dim": 1, "alpha": 3, "decompose_both": True}),
    "lokr, both whole": ("lokr", {"lora_dim": 2, "alpha": 3, "full_matrix": True}),
    "lokr tucker": ("lokr", {"lora_dim": 1, "alpha": 3, "use_tucker": True, "factor": 2}),
    "dokr": ("lokr", {"lora_dim": 2, "alpha": 3, "factor": 4, "weight_decompose": True}),
    "full": ("full", {}),
    "ia3": ("ia3", {}),
    "ia3 by input": ("ia3", {"train_on_input": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_as_lycoris_applies_it(case: str, tmp_path: Path) -> None:
    algorithm, options = CASES[case]
    tensors, expected = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module, wrapped in lycoris_modules(algorithm, **options):
            state = wrapped.custom_state_dict() or wrapped.state_dict()
            tensors |= {
                f"{flat('sd1', 'unet', name)}.{part}": t.detach().clone().contiguous() for part, t in state.items()
            }
            expected[f"{name}.weight"] = weight_seen(wrapped, module)
    file = tmp_path / "a.safetensors"
    save_file(tensors, file)
    ours = merged("sd1", file)["unet"]
    for name, weight in expected.items():
        np.testing.assert_allclose(ours[name], weight, atol=1e-5 * max(1.0, float(np.abs(weight).max())), err_msg=name)
        assert not np.allclose(ours[name], weights_of("sd1")["unet"][name], atol=1e-3)
    half = merged("sd1", (file, 0.5))["unet"]
    for name in expected:  # DoRA too: from the weight towards what it becomes
        between = (weights_of("sd1")["unet"][name] + ours[name]) / 2
        np.testing.assert_allclose(half[name], between, atol=1e-5 * max(1.0, float(np.abs(between).max())))
    assert not merged("sd1", (file, 0.0))


def test_differences_of_norms_and_biases(tmp_path: Path) -> None:
    base = weights_of("sd1")["unet"]
    random = np.random.default_rng(0)
    added = {n: random.normal(size=base[n].shape).astype(np.float32) for n in (f"{NORM}.weight", f"{NORM}.bias")}
    bias = random.normal(size=base["conv_in.bias"].shape).astype(np.float32)
    tensors = {
        f"{flat('sd1', 'unet', NORM)}.w_norm": added[f"{NORM}.weight"],
        f"{flat('sd1', 'unet', NORM)}.b_norm": added[f"{NORM}.bias"],
        "diffusion_model.input_blocks.0.0.diff_b": bias,
    }
    save_file({k: torch.from_numpy(v) for k, v in tensors.items()}, tmp_path / "a.safetensors")
    ours = merged("sd1", (tmp_path / "a.safetensors", -2.0))["unet"]
    assert set(ours) == {*added, "conv_in.bias"}
    for name, difference in (added | {"conv_in.bias": bias}).items():
        np.testing.assert_allclose(ours[name], base[name] - 2 * difference, atol=1e-5)


def test_several_are_summed_from_the_exported_weight(tmp_path: Path) -> None:
    files = []
    for case in ("dora", "loha", "lokr"):
        algorithm, options = CASES[case]
        tensors = {}
        for name, _, wrapped in lycoris_modules(algorithm, **options):
            state = wrapped.custom_state_dict()
            tensors |= {
                f"{flat('sd1', 'unet', name)}.{part}": t.detach().clone().contiguous() for part, t in state.items()
            }
        files.append(tmp_path / f"{case}.safetensors")
        save_file(tensors, files[-1])
    base = weights_of("sd1")["unet"]
    each = [merged("sd1", file)["unet"] for file in files]
    loras = list(zip(files, (1.0, -0.3, 1.7), strict=True))
    expected = merged("sd1", *loras)["unet"]
    for order in itertools.permutations(loras):
        for name, weight in merged("sd1", *order)["unet"].items():
            np.testing.assert_array_equal(weight, expected[name], "to the bit, whatever the order")
    for name, weight in expected.items():
        total = sum(s * (one[name] - base[name]) for one, (_, s) in zip(each, loras, strict=True))
        np.testing.assert_allclose(weight, base[name] + total, atol=2e-5 * np.abs(weight).max())


def test_an_embedding_of_peft(tmp_path: Path) -> None:
    name = "text_model.embeddings.token_embedding"
    base = weights_of("sd1")["text_encoder"][f"{name}.weight"]
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, base.shape[0], generator=random), torch.randn(base.shape[1], 2, generator=random)
    save_file(
        {f"text_encoder.{name}.lora_embedding_A": a, f"text_encoder.{name}.lora_embedding_B": b},
        tmp_path / "a.safetensors",
    )
    ours = merged("sd1", tmp_path / "a.safetensors")["text_encoder"][f"{name}.weight"]
    np.testing.assert_allclose(ours, base + (b @ a).T.numpy(), atol=1e-5)


def test_words_of_pivotal_tuning_are_read(tmp_path: Path) -> None:
    module = flat("sd1", "unet", MODULES[0])
    width = weights_of("sd1")["unet"][f"{MODULES[0]}.weight"].shape[0]
    tensors = {
        f"{module}.lora_down.weight": torch.ones(1, width),
        f"{module}.lora_up.weight": torch.ones(width, 1),
        "bundle_emb.cat.clip_l": torch.ones(2, 24),
        "bundle_emb.dog.string_to_param.*": torch.zeros(1, 24),
        "text_encoders_0": torch.ones(3, 24),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    ours = read_lora(tmp_path / "a.safetensors", networks_of("sd1")).embeddings
    assert {word: {part: rows.shape for part, rows in parts.items()} for word, parts in ours.items()} == {
        "cat": {"clip_l": (2, 24)},
        "dog": {"": (1, 24)},
        "": {"text_encoders_0": (3, 24)},
    }
