"""The command line as a user types it: results, messages, exit statuses, and nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from sdengine.runtime.decode.image_file import read_record

from ...bundles import SIZES, bundle_of, checkpoint_of

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def sdengine(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdengine.runtime", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT, cwd=folder
    )


@pytest.fixture(scope="module")
def bundle() -> Path:
    return bundle_of("sdxl")


def test_run_writes_a_picture_with_its_settings(bundle: Path, tmp_path: Path) -> None:
    done = sdengine(
        "run", bundle, "a cat", "-o", tmp_path / "cat.png", "--seed", 0, "--steps", 2, "--height", 40, "--width", 48,
        "--negative-prompt", "dog", "--scheduler", "euler_a", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    image = {"path": str(tmp_path / "cat.png"), "seed": 0, "width": 48, "height": 40, "nsfw_content_detected": None}
    assert report["images"] == [image]
    assert set(report["engines"]) == {"text_encoder", "text_encoder_2", "conditioner", "denoiser", "vae_decoder"}
    assert set(report) >= {"images", "engines", "fallbacks", "timings_ms", "warnings"}
    assert {"load", "text", "condition", "denoise", "decode", "total", "steps"} <= set(report["timings_ms"])
    assert len(report["timings_ms"]["steps"]) == 2
    with Image.open(tmp_path / "cat.png") as picture:
        assert picture.size == (48, 40)
    record = read_record(tmp_path / "cat.png")
    assert (record.prompt, record.negative_prompt, record.seed) == ("a cat", "dog", 0)
    assert record.settings["scheduler"] == "EulerAncestralDiscreteScheduler"


def test_several_pictures_are_numbered(bundle: Path, tmp_path: Path) -> None:
    done = sdengine(
        "run", bundle, "a", "b", "-o", tmp_path / "x.png", "--seed", 4, "--steps", 1, "--images", 2, "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [image["seed"] for image in report["images"]] == [4, 5, 6, 7]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["x-1.png", "x-2.png", "x-3.png", "x-4.png"]
    assert [read_record(tmp_path / f"x-{i}.png").prompt for i in (1, 2, 3, 4)] == ["a", "a", "b", "b"]


def test_a_scheduler_config_of_another_checkpoint(bundle: Path, tmp_path: Path) -> None:
    config = {"_class_name": "HeunDiscreteScheduler", "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    given = ["--scheduler-config", tmp_path / "scheduler_config.json", "--json", "-o", tmp_path / "a.png"]
    done = sdengine("run", bundle, "a cat", *given, "--steps", 2, "--scheduler-option", "timestep_spacing=trailing")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["settings"]["scheduler"] == "HeunDiscreteScheduler"
    assert report["settings"]["scheduler_config"]["timestep_spacing"] == "trailing"
    assert report["warnings"] == [
        "scheduler_config: HeunDiscreteScheduler has no skip_prk_steps: no effect, as in diffusers"
    ]
    assert read_record(tmp_path / "a.png").settings == report["settings"]
    done = sdengine(
        "run",
        bundle,
        "a cat",
        *given,
        "--steps",
        1,
        "--scheduler",
        "euler",
        "--scheduler-option",
        "use_karas_sigmas=true",
    )
    assert (done.returncode, "did you mean 'use_karras_sigmas'" in done.stderr) == (2, True)


def test_what_a_prompt_holds_is_printed_as_it_was_written(bundle: Path, tmp_path: Path) -> None:
    done = sdengine("run", bundle, "a <lora:x:0.8> (16:9) BREAK", "--steps", 1, "-o", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "<lora:x:0.8>, BREAK (it starts a new window with long_prompt='chunk')" in said
    assert "(16:9) in the prompt is read as text" in said


def test_a_photograph_lying_on_its_side(bundle: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (80, 40), (200, 30, 30)).save(tmp_path / "photo.jpg", exif=exif)
    done = sdengine(
        "run", bundle, "a cat", "--image", tmp_path / "photo.jpg", "--steps", 2, "--strength", 1, "--json",
        "-o", tmp_path / "a.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.height, picture.width) == (80, 40)


def test_latents_and_arrays(bundle: Path, tmp_path: Path) -> None:
    for kind, shape in (("latent", (1, 4, 8, 8)), ("np", (1, 64, 64, 3))):
        file = tmp_path / f"{kind}.npy"
        done = sdengine("run", bundle, "a cat", "--steps", 1, "--output-type", kind, "-o", file)
        assert done.returncode == 0, done.stderr
        assert np.load(file).shape == shape


def test_inspect(bundle: Path) -> None:
    done = sdengine("inspect", bundle, "--check")
    assert done.returncode == 0, done.stderr
    for word in ("family sdxl", "denoiser", "conditioner", "UNet2DConditionModel", "SHA-256"):
        assert word in done.stdout
    manifest = json.loads(sdengine("inspect", bundle, "--json").stdout)
    assert manifest["family"] == "sdxl"


def test_inspect_tells_what_computes_in_which_precision(bundle: Path) -> None:
    done = sdengine("inspect", bundle_of("sdxl", engines=["onnxruntime"], precision="fp16", batch="1..2"), "--json")
    found = {entry["component"]: entry["computes_in"] for entry in json.loads(done.stdout)["precisions"]}
    assert {"fp16", "fp32"} == set(found["denoiser"])
    assert "Conv" in found["denoiser"]["fp16"] and "Sin" in found["denoiser"]["fp32"]
    assert set(found["vae_decoder"]) == {"fp32"}, "SDXL's VAE overflows in float16"
    assert "GroupNormalization" in sdengine("inspect", bundle).stdout


def test_doctor() -> None:
    found = json.loads(sdengine("doctor", "--json").stdout)
    assert found["engines"]["onnxruntime"]["available"] is True
    done = sdengine("doctor")
    assert done.returncode == 0
    assert "onnxruntime" in done.stdout
    assert '[tensorrt]"' in "".join(done.stdout.split()), "brackets are no markup"


def test_version_and_help() -> None:
    assert sdengine("--version").stdout.strip()
    shown = sdengine("--help").stdout
    for command in ("demo", "export", "run", "inspect", "doctor"):
        assert command in shown


def joined(value: object) -> str | None:
    return " ".join(value) if isinstance(value, list) else None


BAD_RUNS = [
    (["nowhere", "x"], 1, "there is no bundle at nowhere"),
    ([".", "x"], 1, "has no manifest.json"),
    (["BUNDLE", "x", "--height", "63"], 2, "no multiple of 8; the nearest that works is 64"),
    (["BUNDLE", "x", "--width", "4096"], 2, "the nearest that works is 128"),
    (["BUNDLE", "x", "--steps", "0"], 2, "num_inference_steps=0"),
    (["BUNDLE", "x", "--steps", "many"], 2, "valid integer"),
    (["BUNDLE", "x", "--seed", "-99999999999999999999999"], 2, "seed"),
    (["BUNDLE", "x", "--seed", "1", "--seed", "2", "--images", "3"], 2, "2 seeds for 3 images"),
    (["BUNDLE", "x", "--scheduler", "uler"], 2, "did you mean 'euler'"),
    (["BUNDLE", "x", "--device", "gpu"], 2, "none of cpu, cuda and cuda:N"),
    (["BUNDLE", "x", "--precision", "fp15"], 2, "unknown precision 'fp15'; there are"),
    (["BUNDLE", "x", "--scheduler-option", "use_karras_sigma=true"], 2, "use_karras_sigmas"),
    (["BUNDLE", "x", "--scheduler-option", "nonsense"], 2, "write NAME=VALUE"),
    (["BUNDLE", "x", "--engine", "onxruntime"], 2, "did you mean 'onnxruntime'"),
    (["BUNDLE", "x", "--engine", "onnxruntime", "--precision", "fp16"], 1, "not in fp16; export it again"),
    (["BUNDLE", "x", "--engine", "onnxruntime", "--memory-limit", "9"], 2, "no option memory_limit; it is for onnxr"),
    (["BUNDLE", "x", "--threads", "100000000000"], 2, "threads=100000000000 is too large; 4096 is the most"),
    (["BUNDLE", "x", "--memory-limit", "0"], 2, "--memory-limit"),
    (["BUNDLE", "x", "--fallback", "maybe"], 2, "neither allow nor error"),
    (["BUNDLE", "x", "-o", "x.tiff"], 2, "unknown image format"),
    (["BUNDLE", "x", "-o", "/dev/null/x.png"], 2, "/dev/null is no folder"),
    (["BUNDLE", "x", "--image", "missing.png"], 2, "missing.png"),
    (["BUNDLE", "x", "--strength", "0.5"], 2, "strength needs image"),
    (["BUNDLE", "x", "--mask-image", "m.png"], 2, "mask_image needs image"),
    (["BUNDLE", "x", "--control-image", "c.png"], 2, "no ControlNet"),
    (["BUNDLE", "x", "--original-size", "big"], 2, "two whole numbers"),
    (["BUNDLE", "x", "--sigmas", "a,b"], 2, "write numbers"),
    (["BUNDLE", "x", "--embeds", "missing.safetensors"], 2, "missing.safetensors"),
    (["BUNDLE", "x", "--output-type", "pt"], 2, "none of pil, np, latent"),
    (["BUNDLE"], 2, "there is no prompt"),
    (["BUNDLE", "x", "--frobnicate"], 2, "No such option"),
    (["BUNDLE", "x", "--guidance-scale", "nan"], 2, "finite"),
    (["BUNDLE", "x", "--denoising-end", "2"], 2, "outside 0 to 1"),
    (["BUNDLE", "x", "--clip-skip", "99"], 2, "clip_skip"),
    (["BUNDLE", "x", "--rng", "dice"], 2, "dice"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "message"), BAD_RUNS, ids=lambda v: " ".join(v) if isinstance(v, list) else None
)
def test_bad_runs(bundle: Path, tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    given = [str(bundle) if a == "BUNDLE" else a for a in arguments]
    done = sdengine("run", *given, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "a refused request must write nothing"


BAD_EXPORTS = [
    (["nowhere", "-o", "out"], 1, "nowhere"),
    (["CHECKPOINT"], 2, "Missing option"),
    (["CHECKPOINT", "-o", "out", "--engine", "tensorflow"], 2, "unknown engine 'tensorflow'"),
    (["CHECKPOINT", "-o", "out", "--sizes", "7x7"], 2, "no multiple of 8"),
    (["CHECKPOINT", "-o", "out", "--stop-after", "lunch"], 2, "only 'graphs'"),
    (["CHECKPOINT", "-o", "out", "--verify", "maybe"], 2, "none of full, fast, off"),
    (["CHECKPOINT", "-o", "out", "--controlnet", "nowhere"], 1, "nowhere"),
    (["CHECKPOINT", "-o", "out", "--refit"], 2, "no plans are built"),
    (["CHECKPOINT", "-o", "out", "--engine", "tensorrt-rtx", "--target", "sm89", "--timing-cache"], 2, "timing_cache"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "message"), BAD_EXPORTS, ids=lambda v: " ".join(v) if isinstance(v, list) else None
)
def test_bad_exports(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    given = [str(checkpoint_of("sd1")) if a == "CHECKPOINT" else a for a in arguments]
    done = sdengine("export", *given, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_build_adds_a_plan(tmp_path: Path) -> None:
    copy = shutil.copytree(bundle_of("sd1"), tmp_path / "bundle")
    arguments = ("build", copy, "--engine", "tensorrt-rtx", "--target", "sm89", "--component", "text_encoder")
    done = sdengine(*arguments)
    assert done.returncode == 0, done.stderr
    assert len(list((copy / "engines").rglob("*.plan"))) == 1
    assert "text_encoder: not verified: there is no NVIDIA GPU here" in done.stderr
    assert "text_encoder: Building engine, step 6 of 6" in done.stderr
    assert sdengine("inspect", copy, "--check").returncode == 0
    assert "yes" in sdengine(*arguments).stdout, "what still fits is kept"
    report = json.loads(sdengine("inspect", copy, "--memory", "--json").stdout)
    [memory] = report["memory"]
    assert (memory["engine"], memory["target"]) == ("tensorrt-rtx", "sm89")
    [plan] = memory["plans"]
    assert plan["scratch_by_profile"] is None and "GPU" in plan["scratch_is_a_total_because"]
    assert memory["total"] == plan["weights"] + plan["scratch"] + max(plan["buffers_by_profile"])
    assert memory["on_top"] == ["cuda_context", "captured_graphs"]
    shown = sdengine("inspect", copy, "--memory").stdout
    assert "text_encoder" in shown and "come on top" in shown
    assert "in total" in shown and "scratch is a total over the profiles where plans cannot be opened" in shown
    layers = [entry for entry in report["precisions"] if entry["of"].startswith("plan")]
    assert layers[0]["computes_in"]["fp32"]["normalization"] > 0


def test_memory_of_a_bundle_without_plans(bundle: Path) -> None:
    assert "holds no plans" in sdengine("inspect", bundle, "--memory").stdout
    assert json.loads(sdengine("inspect", bundle, "--memory", "--json").stdout)["memory"] == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--engine", "onnxruntime"], 2, "no plans are built for 'onnxruntime'"),
        (["--engine", "tensorrt-rtx", "--target", "sm42"], 2, "sm89"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--verify", "maybe"], 2, "none of full, fast, off"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--workspace", "0"], 2, "at least 1048576"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--component", "unet"], 2, "denoiser"),
        (["--engine", "tensorrt-rtx", "--target", "sm89", "--precision", "fp8"], 2, "fp8"),
    ],
    ids=joined,
)
def test_bad_builds(bundle: Path, arguments: list[str], status: int, message: str) -> None:
    before = sorted(bundle.rglob("*"))
    done = sdengine("build", bundle, *arguments)
    assert done.returncode == status, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(bundle.rglob("*")) == before


def test_export_and_draw(tmp_path: Path) -> None:
    done = sdengine("export", checkpoint_of("sd1"), "-o", tmp_path / "b", "--sizes", SIZES, "--verify", "off")
    assert done.returncode == 0, done.stderr
    done = sdengine("run", tmp_path / "b", "a cat", "--steps", 1, "-o", tmp_path / "cat.webp")
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "cat.webp").prompt == "a cat"


def test_run_with_loras(bundle: Path, tmp_path: Path) -> None:
    """Those of the options and of the prompt, each once; the image says what was asked for."""
    from ...engines.lora.networks import kohya_lora

    kohya_lora("sdxl", tmp_path / "style.safetensors", size=0.1, network_names=("unet",))
    options = ("--engine", "onnxruntime", "--steps", 1, "--height", 32, "--width", 32, "--seed", 1, "--json")
    loras = ("--lora", "style:0.25", "--lora-folder", tmp_path, "-o", tmp_path / "a.png")
    done = json.loads(sdengine("run", bundle, "a cat <lora:style:0.5>", *loras, *options).stdout)
    assert [(lora["name"], lora["strength"]) for lora in done["loras"]] == [("style", 0.25), ("style", 0.5)]
    assert done["timings_ms"]["loras"] == 0
    assert read_record(tmp_path / "a.png").prompt == "a cat <lora:style:0.5>"
    refused = sdengine("run", bundle, "a cat", "--lora", tmp_path / "none.safetensors")
    assert refused.returncode == 2 and "there is no LoRA" in refused.stderr
