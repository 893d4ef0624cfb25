"""``sdengine debug`` as a user types it: what is printed, exit statuses, and Polygraphy's own repetition."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ...bundles import bundle_of
from .spoilt import spoilt
from .test_find import _epsilon

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT.get('PATH', '')}"


def sdengine(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdengine.runtime", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT)


def test_within_tolerance() -> None:
    done = sdengine("debug", bundle_of("sd1"), "conditioner", "--engine", "onnxruntime", "--size", "64x96")
    assert done.returncode == 0, done.stderr
    assert "all within tolerance" in done.stdout and "in float32 only the order of sums differs" in done.stdout
    assert "components/unet/conditioner.fp32.contrib.onnx" in done.stdout


def test_a_departure_is_saved_and_polygraphy_repeats_it(tmp_path: Path) -> None:
    path, name = spoilt(bundle_of("sd1"), tmp_path, "text_encoder", _epsilon, contrib=True)
    saved = tmp_path / "saved"
    done = sdengine("debug", path, "text_encoder", "--engine", "onnxruntime", "--save", saved, "--json", "--show", 2)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    [component] = report["components"]
    assert report["departs"] and component["departs"] and component["saved"] == str(saved)
    assert 1 <= len(component["first"]) <= 2 and component["first"][0]["value"] == name
    again = subprocess.run(
        ["sh", "repeat.sh"], cwd=saved, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert again.returncode == 1, again.stderr
    assert f"FAILED | Output: '{name}'" in again.stdout
    refused = sdengine("debug", path, "text_encoder", "--engine", "onnxruntime", "--save", saved)
    assert refused.returncode == 2 and "exists already" in refused.stderr


def test_polygraphy_agrees_where_nothing_departs(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    done = sdengine("debug", bundle_of("sd1"), "conditioner", "--engine", "openvino", "--save", saved)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        ["sh", "repeat.sh"], cwd=saved, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert again.returncode == 0, again.stdout


def test_what_has_no_size_says_that_it_is_ignored_and_a_component_named_twice_is_run_once(tmp_path: Path) -> None:
    names = ["conditioner", "conditioner"]
    saved = tmp_path / "deep" / "saved"
    done = sdengine(
        "debug", bundle_of("sd1"), *names, "--engine", "openvino", "--size", "64x96", "--save", saved, "--json"
    )
    assert done.returncode == 0, done.stderr
    [component] = json.loads(done.stdout)["components"]
    assert any("--size has no effect" in note for note in component["notes"])
    assert (saved / "repeat.sh").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["denoser", "--engine", "onnxruntime"], 1, "has no component 'denoser'"),
        (["denoiser"], 2, "Missing option '--engine'"),
        (["denoiser", "--engine", "onnxruntime", "--size", "64"], 2, "write WIDTHxHEIGHT"),
        (["denoiser", "--engine", "onnxruntime", "--against", "onnx"], 2, "did you mean 'onnxruntime'"),
        (["denoiser", "--engine", "tensorrt-rtx"], 1, "GPU"),
        (["denoiser", "--engine", "onnxruntime", "--save", f"{__file__}/saved"], 2, "no folder that can be written"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_use(arguments: list[str], status: int, message: str) -> None:
    done = sdengine("debug", bundle_of("sd1"), *arguments)
    assert done.returncode == status, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr and "this is a bug" not in done.stderr
