"""diffusers' methods for LoRAs, one after the other: the weights that they come to are diffusers' own."""

import copy
import functools
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from diffusers.utils.peft_utils import scale_lora_layers
from numpy.typing import NDArray
from sdengine.engines.errors import SdengineError, UsageError
from sdengine.runtime.pipelines.adapter_methods import AdapterMethods
from sdengine.runtime.pipelines.adapters import Adapters

from ...bundles import checkpoint_of
from ...engines.lora.networks import flat, merged, weights_of

F32 = NDArray[np.float32]
MODULES = {
    "unet": ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "up_blocks.1.attentions.0.proj_in"),
    "text_encoder": tuple(f"text_model.encoder.layers.0.self_attn.{name}_proj" for name in ("q", "out")),
}


@functools.cache
def folder() -> Path:
    """Write LoRAs: ``a`` is for both networks, ``b`` and ``c`` for the UNet, ``t`` for the text encoder."""
    from safetensors.numpy import save_file

    path = checkpoint_of("sd1").with_name("sd1-adapters")
    path.mkdir(exist_ok=True)
    for seed, (name, networks) in enumerate(
        {"a": [*MODULES], "b": ["unet"], "c": ["unet"], "t": ["text_encoder"]}.items()
    ):
        random, tensors = np.random.default_rng(seed), {}
        for network in networks:
            for module in MODULES[network]:
                shape, key = weights_of("sd1")[network][f"{module}.weight"].shape, flat("sd1", network, module)
                tail = (1,) * (len(shape) - 2)
                tensors[f"{key}.lora_down.weight"] = random.normal(size=(2, *shape[1:])).astype(np.float32)
                tensors[f"{key}.lora_up.weight"] = random.normal(size=(shape[0], 2, *tail)).astype(np.float32)
        save_file(tensors, path / f"{name}.{seed}")
        (path / f"{name}.{seed}").replace(path / f"{name}.safetensors")
    return path


class _Opening:
    """Keeps the options of a checkpoint that is not open."""

    def __init__(self) -> None:
        self.adapters = Adapters()

    @property
    def options(self) -> "_Opening":
        return self

    def change(self, adapters: Adapters) -> None:
        self.adapters = adapters


class Ours(AdapterMethods):
    """The methods, without a checkpoint."""

    def __init__(self) -> None:
        self._opening: Any = _Opening()

    def weights(self, scale: float | None = None) -> dict[str, dict[str, F32]]:
        """Return the weights of a call, which may have a scale."""
        adapters = self._opening.adapters
        settings = adapters.of_call({"cross_attention_kwargs": None if scale is None else {"scale": scale}})
        left = (settings["cross_attention_kwargs"] or {}).get("scale", 1.0)  # of all, as the pipeline understands it
        loras = [
            (file, {**w, "scale": left * w.get("scale", 1.0)} if isinstance(w, dict) else left * w)
            for file, w in settings.get("loras", adapters.sources)
        ]
        return merged("sd1", *loras)


def effective(pipe: Any) -> dict[str, F32]:
    """Return the weights that diffusers' pipeline computes with."""
    weights = {}
    for network, modules in MODULES.items():
        for module in modules:
            name = module if network == "unet" else module.removeprefix("text_model.")
            layer = getattr(pipe, network).get_submodule(name)
            weight = getattr(layer, "base_layer", layer).weight.detach().numpy().copy()
            if hasattr(layer, "base_layer"):
                used = [] if layer.disable_adapters else [n for n in layer.active_adapters if n in layer.lora_A]
                for adapter in layer.merged_adapters if layer.disable_adapters else ():
                    weight -= layer.get_delta_weight(adapter).detach().numpy()
                for adapter in () if layer.merged else used:
                    weight += layer.get_delta_weight(adapter).detach().numpy()
            weights[f"{network} {module}.weight"] = weight
    return weights


def load(name: str, **options: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return "load_lora_weights", (str(folder() / f"{name}.safetensors"),), {"adapter_name": name, **options}


def call(method: str, *arguments: Any, **options: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return method, arguments, options


BLOCKS = {"unet": {"mid": 0.5, "up": {"block_1": [0.2, 0.3]}}, "text_encoder": 0.1}
SEQUENCES: dict[str, Any] = {
    "each component has its last": lambda: [load("a"), load("b"), load("t")],
    "set": lambda: [load("a"), load("b"), call("set_adapters", ["b", "a"], [0.5, -2.0])],
    "set one for all": lambda: [load("a"), load("b"), call("set_adapters", ["b", "a"], 0.5)],
    "set by block": lambda: [load("a"), load("b"), call("set_adapters", ["a", "b"], [BLOCKS, None])],
    "set, then load": lambda: [load("a"), call("set_adapters", "a", 0.5), load("b")],
    "delete the active one": lambda: [load("a"), load("c"), load("b"), call("delete_adapters", "b")],
    "delete one of two": lambda: [load("a"), load("b"), call("set_adapters", ["a", "b"]), call("delete_adapters", "a")],
    "disabled stays so": lambda: [load("a"), call("disable_lora"), call("set_adapters", "a", 0.5)],
    "disabled, enabled": lambda: [load("a"), call("disable_lora"), load("b"), call("enable_lora")],
    "fuse": lambda: [load("a"), call("set_adapters", "a", BLOCKS), call("fuse_lora", lora_scale=0.7)],
    "fuse, unload, load": lambda: [
        load("a"),
        call("fuse_lora", lora_scale=0.7),
        call("unload_lora_weights"),
        load("b"),
    ],
    "fuse a component": lambda: [load("a"), call("fuse_lora", components=["unet"]), call("unload_lora_weights")],
    "fuse one of two": lambda: [
        load("a"),
        load("b"),
        call("set_adapters", ["a", "b"], [0.5, 0.6]),
        call("fuse_lora", adapter_names=["a"]),
        call("unload_lora_weights"),
    ],
    "fused, set": lambda: [load("a"), call("fuse_lora"), call("set_adapters", "a", 0.3)],
    "fused, disabled": lambda: [load("a"), call("fuse_lora"), call("disable_lora")],
    "fused, deleted": lambda: [load("a"), call("fuse_lora"), call("delete_adapters", "a"), load("b")],
    "unfuse": lambda: [load("a"), call("fuse_lora"), call("fuse_lora"), call("unfuse_lora")],
    "unfuse a component": lambda: [load("a"), call("fuse_lora"), call("unfuse_lora", components=["unet"])],
    "hotswap": lambda: [load("b"), load("c", adapter_name="b", hotswap=True)],
    "unload": lambda: [load("a"), call("unload_lora_weights"), call("unload_lora_weights")],
}


@pytest.fixture(scope="module")
def checkpoint() -> Any:
    return diffusers.StableDiffusionPipeline.from_pretrained(checkpoint_of("sd1"), safety_checker=None)


def same(changed: dict[str, dict[str, F32]], expected: dict[str, F32]) -> None:
    for key, weight in expected.items():
        network, module = key.split()
        found = changed.get(network, {}).get(module, weights_of("sd1")[network][module])
        np.testing.assert_allclose(found, weight, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", SEQUENCES)
def test_weights_as_diffusers(name: str, checkpoint: Any) -> None:
    parts = {part: copy.deepcopy(getattr(checkpoint, part)) for part in MODULES}
    theirs, ours = diffusers.StableDiffusionPipeline(**{**checkpoint.components, **parts}), Ours()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method, arguments, options in SEQUENCES[name]():
            getattr(theirs, method)(*arguments, **copy.deepcopy(options))
            getattr(ours, method)(*arguments, **options)
        expected = effective(theirs)
        for part in MODULES:
            scale_lora_layers(getattr(theirs, part), 0.4)
        scaled = effective(theirs)
        components = {part: set(names) for part, names in theirs.get_list_adapters().items()}
    same(ours.weights(), expected)
    if name != "fused, disabled":  # diffusers takes another amount away there than it has added
        same(ours.weights(scale=0.4), scaled)
    assert {part: set(names) for part, names in ours.get_list_adapters().items()} == components
    assert (ours.num_fused_loras, ours.fused_loras) == (theirs.num_fused_loras, theirs.fused_loras)


def test_names_of_active_ones() -> None:
    ours = Ours()
    assert ours.get_active_adapters() == []
    for name in "abt":
        method, arguments, options = load(name)
        getattr(ours, method)(*arguments, **options)
    assert ours.get_active_adapters() == ["b", "t"]
    ours.set_adapters(["a", "t"])
    assert ours.get_active_adapters() == ["a", "t"]
    ours.delete_adapters(["a", "b"])
    assert ours.get_active_adapters() == ["t"] and ours.get_list_adapters() == {"text_encoder": ["t"]}


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("set_adapters", ("zz",), "no LoRA is called 'zz'; loaded: a"),
        ("set_adapters", (["a"], [1, 2]), "2 for 1 adapters"),
        ("set_adapters", ("a", {"unet": 1.0, "vae": 1.0}), "names 'vae': it can name unet"),
        ("delete_adapters", ("zz",), "no LoRA is called 'zz'"),
        ("fuse_lora", ([],), "components: none is named"),
        ("fuse_lora", (["vae"],), "'vae' has no LoRAs; there are unet"),
        ("unfuse_lora", (["vae"],), "'vae' has no LoRAs"),
        ("load_lora_weights", ("../sd1-0/unet", "u"), "is a checkpoint, not a LoRA"),
        ("load_lora_weights", ("a.safetensors", "a"), "is loaded already"),
        ("load_lora_weights", ("b.safetensors", "a", True), "only LoRAs of the UNet alone"),
    ],
)
def test_what_cannot_be_done(method: str, arguments: tuple[Any, ...], message: str) -> None:
    ours = Ours()
    ours.load_lora_weights(folder() / "a.safetensors", "a")
    before = ours.weights()
    if method == "load_lora_weights":
        arguments = (folder() / arguments[0], *arguments[1:])
    with pytest.raises(UsageError, match=message):
        getattr(ours, method)(*arguments)
    after = ours.weights()
    assert ours.get_active_adapters() == ["a"]
    for network, weights in before.items():
        for name, weight in weights.items():
            assert np.array_equal(weight, after[network][name])


def test_a_damaged_file_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "torn.safetensors"
    file.write_bytes((folder() / "a.safetensors").read_bytes()[:-50])
    with pytest.raises(SdengineError, match="no intact"):
        Ours().load_lora_weights(file)
