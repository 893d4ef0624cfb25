"""Strengths by component and by block, and several LoRAs at once, against diffusers' ``set_adapters``."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from sdengine.engines.errors import UsageError
from sdengine.engines.lora import sources_of

from ...bundles import checkpoint_of
from .networks import kohya_lora, merged, weights_of

STRENGTHS: list[Any] = [
    0.6,
    -1.5,
    {"unet": 0.5, "text_encoder": 2.0},
    {"unet": {"down": 0.5, "mid": 0.0, "up": {"block_1": [0.1, 0.7], "block_3": -2.0}}},
    {"unet": {"down": {"block_1": 0.3}}, "text_encoder": 0.0},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [kohya_lora("sd1", folder / f"{i}.safetensors", seed=i, rank=2 + i) for i in range(2)]


@pytest.fixture(scope="module")
def theirs(files: list[Path]) -> Any:
    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint_of("sd1"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        for name, file in zip("ab", files, strict=True):
            pipe.load_lora_weights(str(file), adapter_name=name)
    # diffusers cannot say a strength by block for the first and last convolution, nor for the embedding of time.
    for name in ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"):
        pipe.unet.set_submodule(name, pipe.unet.get_submodule(name).base_layer)
    return pipe


@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
def test_as_set_adapters(strength: Any, files: list[Path], theirs: Any) -> None:
    theirs.set_adapters(["a", "b"], [strength, 0.4])
    ours = merged("sd1", (files[0], strength), (files[1], 0.4))
    for network in ("unet", "text_encoder"):
        layers = {n: m for n, m in getattr(theirs, network).named_modules() if hasattr(m, "get_delta_weight")}
        assert len(layers) > 10
        for name, layer in layers.items():
            summed = layer.base_layer.weight + layer.get_delta_weight("a") + layer.get_delta_weight("b")
            own = f"text_model.{name}.weight" if network == "text_encoder" else f"{name}.weight"
            np.testing.assert_allclose(ours[network][own], summed.detach().numpy(), atol=1e-5, err_msg=name)


def test_numbers_of_numpy() -> None:
    [(_, strength)] = sources_of([("a", {"unet": {"mid": np.float32(0.5), "up": (np.int64(1),)}})])
    assert json.dumps(strength) == '{"unet": {"mid": 0.5, "up": [1.0]}}'
    assert sources_of([("a", np.float16(0.5))]) == [(Path("a"), 0.5)]
    for sources in (None, 3, "a", {"a": 0.5}):
        with pytest.raises(UsageError, match="give a list of files"):
            sources_of(sources)  # type: ignore[arg-type]


def test_what_no_block_names_has_strength_one(tmp_path: Path) -> None:
    file = kohya_lora("sd1", tmp_path / "a.safetensors")
    whole = merged("sd1", file)["unet"]
    blocks = merged("sd1", (file, {"unet": {"down": 0.0, "up": 0.0, "mid": 0.0}}))["unet"]
    assert {name.split(".")[0] for name in blocks} >= {"conv_in", "conv_out", "time_embedding"}
    assert not any(".attentions." in name for name in blocks)
    for name, weight in blocks.items():
        assert np.array_equal(weight, whole[name])
        assert not np.array_equal(weight, weights_of("sd1")["unet"][name])
