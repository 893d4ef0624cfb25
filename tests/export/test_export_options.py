"""What a bundle was exported with is recorded, and hints repeat it."""

import shlex
from pathlib import Path

import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.export_command import export_command
from sdengine.engines.errors import BundleError
from sdengine.engines.trt import BuildOptions
from sdengine.export.export_options import export_options

from ..bundles import SIZES, bundle_of, controlnets_of


def test_options_are_words_without_the_paths_of_files(tmp_path: Path) -> None:
    vae = tmp_path / "a vae"
    vae.mkdir()
    values = {
        "engine": ("onnxruntime", "openvino"),
        "sizes": None,
        "vae": vae,
        "controlnet": ["someone/canny"],
        "lora": [(tmp_path / "style.safetensors", 0.5)],
        "copy_weights": False,
        "offline": True,
    }
    words = export_options(values, BuildOptions(targets=("sm89",), workspace=64 << 20, refit=True))
    assert shlex.join(words) == (
        "--engine onnxruntime --engine openvino --vae 'a vae' --controlnet someone/canny --lora style.safetensors:0.5 "
        "--offline --workspace 64 --refit --target sm89"
    )


def test_the_command_changes_one_option_and_repeats_the_others() -> None:
    options = ["--engine", "onnxruntime", "--precision", "fp32", "--offline"]
    command = export_command(Path("a b"), "sdxl", options, "--precision", "fp16", "--controlnet", "canny")
    assert command == (
        "sdengine export sdxl -o 'a b' --overwrite --engine onnxruntime --offline --precision fp16 --controlnet canny"
    )


def test_a_bundle_knows_its_command() -> None:
    bundle = Bundle(bundle_of("sd1", controlnets=1))
    command = bundle.export_command()
    assert f"--engine onnxruntime --sizes {SIZES} --batch 1..4 --controlnet" in command
    assert str(controlnets_of("sd1", 1)[0]) not in command
    with pytest.raises(BundleError, match=f"export it again: sdengine export .* --sizes {SIZES} .* --precision fp16"):
        bundle.graph("denoiser", "fp16")
