"""The first use of a checkpoint exports it, in a process of its own; later ones find the bundle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sdengine.engines.errors import SdengineError, UsageError
from sdengine.runtime import pipelines
from sdengine.runtime.cli.commands import app
from sdengine.runtime.pipelines import bundle_cache
from sdengine.runtime.pipelines.bundle_cache import Recipe, cached_bundle, cached_bundles, in_use, remove
from typer.testing import CliRunner

from ...bundles import checkpoint_of

DRAW = """
import json, sys
from sdengine.runtime.pipelines import StableDiffusionPipeline
if len(sys.argv) > 2:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], engine="onnxruntime", safety_checker=None)
image = pipe("a cat", num_inference_steps=2, seed=1, output_type="np").images
print(json.dumps({"sum": float(image.sum()), "heavy": sorted({"torch", "onnx", "diffusers"} & set(sys.modules))}))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


def start(checkpoint: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DRAW, str(checkpoint), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def drawn(process: "subprocess.Popen[str]") -> tuple[dict[str, object], str]:
    printed, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    found: dict[str, object] = json.loads(printed)
    return found, said


def leftovers(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if "partial" in entry.name]


def test_killed_half_way_then_two_at_once_then_once_more(cache: Path) -> None:
    checkpoint = checkpoint_of("sd1")
    killed = start(checkpoint)
    for _ in range(6000):
        if cache.is_dir() and leftovers(cache):
            break
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)  # its child, which exports, too
    killed.communicate()
    assert leftovers(cache)
    assert not cached_bundles()

    both = [drawn(process) for process in (start(checkpoint), start(checkpoint))]
    assert both[0][0] == both[1][0]
    exported = [said for _, said in both if "verified denoiser" in said]
    assert len(exported) == 1, "one exports, the other waits"
    assert len(cached_bundles()) == 1
    assert not leftovers(cache)

    again, said = drawn(start(checkpoint))
    assert again == both[0][0]
    assert again["heavy"] == []
    assert "export" not in said


def test_a_full_disk_is_an_error_that_leaves_nothing(cache: Path) -> None:
    process = start(checkpoint_of("sd1"), "1000000")
    _, said = process.communicate(timeout=400)
    assert process.returncode == 1
    assert "could not be written: File too large" in said.splitlines()[-1]
    assert not leftovers(cache)
    assert not cached_bundles()


def recipe(checkpoint: Path, **options: str) -> Recipe:
    return Recipe(**{"name": "sd1", "checkpoint": checkpoint, "engine": "onnxruntime", "precision": "fp32"} | options)  # type: ignore[arg-type]


def test_what_decides_a_bundle_is_in_its_name(cache: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_of("sd1"), checkpoint)
    first = recipe(checkpoint).key()
    assert recipe(checkpoint).key() == first
    assert recipe(checkpoint_of("sd1")).key() == first, "the same content elsewhere is the same"
    assert len({first, *(recipe(checkpoint, **o).key() for o in ({"sizes": "64x64"}, {"precision": "fp16"}))}) == 3

    weights = checkpoint / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    times = weights.stat()
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert recipe(checkpoint).key() != first, "one byte of a weight, under the same name, size and time"


@pytest.fixture
def counted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Exports that take no time: each writes 1000 bytes and a manifest."""
    made: list[Path] = []

    def export(arguments: list[str], **_: object) -> str:
        target = Path(arguments[arguments.index("--output") + 1])
        weights = "components/unet/weights.safetensors"
        (target / weights).parent.mkdir(parents=True)
        (target / weights).write_bytes(bytes(1000))
        manifest = {"schema": 3, "source": "sd1", "engines": ["onnxruntime"], "networks": {}, "files": {weights: {}}}
        (target / "manifest.json").write_text(json.dumps(manifest))
        made.append(target)
        return ""

    monkeypatch.setattr(bundle_cache, "run_command", export)
    return made


def test_bundles_beyond_the_limit_go_unless_they_are_open(counted: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDENGINE_CACHE_LIMIT", "2.5KB")
    said: list[str] = []
    first = cached_bundle(recipe(checkpoint_of("sd1"), sizes="32x32"), say=said.append)
    os.utime(first, (1, 1))
    with in_use(first):
        second = cached_bundle(recipe(checkpoint_of("sd1"), sizes="40x40"), say=said.append)
        os.utime(second, (2, 2))
        third = cached_bundle(recipe(checkpoint_of("sd1"), sizes="48x48"), say=said.append)
        assert [first.exists(), second.exists(), third.exists()] == [True, False, True]
    assert "removed" in said[-1]
    cached_bundle(recipe(checkpoint_of("sd1"), sizes="48x48"), say=said.append)
    assert len(counted) == 3, "what is there is not exported again"
    assert not remove(cached_bundles()[0])


def test_the_command_shows_and_clears(counted: list[Path]) -> None:
    cached_bundle(recipe(checkpoint_of("sd1")), say=lambda line: None)
    shown = CliRunner().invoke(app(), ["cache", "--json"])
    assert json.loads(shown.stdout)["bundles"][0]["path"] == str(counted[0])
    assert "sd1" in CliRunner().invoke(app(), ["cache"]).stdout
    assert "removed" in CliRunner().invoke(app(), ["cache", "clear"]).stdout
    assert not cached_bundles()
    with pytest.raises(UsageError, match="did you mean 'clear'"):
        CliRunner().invoke(app(), ["cache", "cler"], catch_exceptions=False)


def _notes(folder: Path, key: str) -> Path:
    (folder / key / "notes.txt").write_text("only copy")
    return folder / key / "notes.txt"


def _app(folder: Path, key: str) -> Path:
    (folder / "app").mkdir()
    (folder / "app" / "manifest.json").write_text('{"source": "an app of mine"}')
    return folder / "app" / "manifest.json"


def _linked(folder: Path, key: str) -> Path:
    bundle = folder.parent / "mine"
    (folder / key).rename(bundle)
    (folder / key).symlink_to(bundle)
    return bundle / "manifest.json"


@pytest.mark.parametrize("put", [_notes, _app, _linked])
def test_what_is_not_the_cache_s_is_never_removed(counted: list[Path], put: Callable[[Path, str], Path]) -> None:
    bundle = cached_bundle(recipe(checkpoint_of("sd1")), say=lambda line: None)
    file = put(bundle.parent, bundle.name)
    content = file.read_bytes()
    done = CliRunner().invoke(app(), ["cache", "clear"])
    assert done.exit_code == 0, done.output
    assert file.read_bytes() == content
    assert ("notes.txt" in done.stdout) == (file.name == "notes.txt")


def test_a_removal_that_is_killed_is_finished_by_the_next(cache: Path, counted: list[Path]) -> None:
    bundle = cached_bundle(recipe(checkpoint_of("sd1")), say=lambda line: None)
    killed = (
        "import os, signal\n"
        "from sdengine.engines.bundle import whole_folder\n"
        "from sdengine.runtime.pipelines.bundle_cache import cached_bundles, remove\n"
        "whole_folder._remove = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "remove(cached_bundles()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", killed], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    [left] = [path.name for path in bundle.parent.iterdir() if path.is_dir()]
    assert left.startswith(f".{bundle.name}.partial-")
    assert cached_bundles() == []
    assert not [path for path in bundle.parent.iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "file" / "cache"))
    pipe = pipelines.StableDiffusionPipeline.from_pretrained(checkpoint_of("sd1"), safety_checker=None)
    with pytest.raises(SdengineError, match="SDENGINE_CACHE"):
        pipe("a cat", num_inference_steps=1)


def test_what_is_no_checkpoint_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SdengineError, match="neither a checkpoint"):
        pipelines.StableDiffusionPipeline.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(SdengineError, match="FluxPipeline"):
        pipelines.StableDiffusionPipeline.from_pretrained(tmp_path)
    with pytest.raises(SdengineError, match="there is no"):
        pipelines.StableDiffusionPipeline.from_pretrained(str(tmp_path / "nowhere"))


def test_images_of_all_output_types_are_the_same(cache: Path) -> None:
    from ...bundles import bundle_of

    pipe = pipelines.StableDiffusionPipeline.from_pretrained(bundle_of("sd1"))
    images = {
        kind: pipe("a cat", num_inference_steps=1, seed=1, output_type=kind).images for kind in ("np", "pil", "pt")
    }
    np.testing.assert_array_equal(images["pt"].permute(0, 2, 3, 1).numpy(), images["np"])
    assert np.abs(np.asarray(images["pil"][0]) / 255 - images["np"][0]).max() < 1 / 255
