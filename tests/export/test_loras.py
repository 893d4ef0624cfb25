"""LoRAs merged at export: the bundle's weights are the checkpoint's with the LoRAs in them, and it says so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sdengine.engines.errors import CheckpointError, UsageError
from sdengine.export import export_bundle
from sdengine.runtime import Pipeline
from sdengine.runtime.cli.bundle_info import inspect

from ..bundles import SIZES, checkpoint_of
from ..engines.lora.networks import kohya_lora, merged
from ..runtime.parity.oracle import oracle, psnr, their_warnings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [kohya_lora("sd1", folder / f"{name}.safetensors", seed=i, size=0.15) for i, name in enumerate("ab")]


def test_merged_and_named(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strengths = [0.8, {"unet": -0.5, "text_encoder": 0.3}]
    loras = list(zip(files, strengths, strict=True))
    bundle = export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", sizes=SIZES, batch="1", loras=loras, verify="off")
    expected = merged("sd1", *loras)
    for network, weights in expected.items():
        stored = load_file(bundle.file(bundle.manifest.networks[network].weights))
        for name, weight in weights.items():
            np.testing.assert_array_equal(stored[name], weight, err_msg=name)
    assert [(lora.name, lora.strength) for lora in bundle.manifest.loras] == list(zip("ab", strengths, strict=True))

    theirs = oracle("sd1", "text")
    with their_warnings():
        for name, file in zip("ab", files, strict=True):
            theirs.load_lora_weights(str(file), adapter_name=name)
        theirs.set_adapters(["a", "b"], strengths)
        settings = {"num_inference_steps": 4, "height": 64, "width": 64, "output_type": "np"}
        expected_image = theirs("a cat", generator=torch.Generator().manual_seed(3), **settings).images
        theirs.unload_lora_weights()
    with Pipeline.load(bundle.path, engine="onnxruntime", threads=1) as pipe:
        image = pipe("a cat", seed=3, **settings).images
    assert psnr(image, expected_image) > 55
    inspect(bundle.path)
    assert "LoRA a merged, strength 0.8" in capsys.readouterr().out


def test_nothing_is_written_where_one_does_not_fit(files: list[Path], tmp_path: Path) -> None:
    sdxl = kohya_lora("sdxl", tmp_path / "xl.safetensors")
    with pytest.raises(UsageError, match="is for a model that reads text of width 56, not for"):
        export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", loras=[files[0], sdxl])
    stored = files[0].read_bytes()
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(stored[: len(stored) // 2])
    with pytest.raises(CheckpointError, match="no intact"):
        export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", loras=[torn])
    with pytest.raises(UsageError, match="must be a list of"):
        export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", loras=str(torn))
    assert not (tmp_path / "bundle").exists()
