"""What a user installs: the wheel is whole, and ``sdengine[cpu]`` alone draws with an exported bundle."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from .bundles import bundle_of

ROOT = Path(__file__).parent.parent


def done(*command: object, cwd: Path | None = None) -> str:
    result = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, cwd=cwd, timeout=500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_oldest_releases_are_those_that_are_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    least = dict(re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", one).groups() for one in promised if ">=" in one)  # type: ignore[union-attr,misc]
    lines = [line for line in (ROOT / "oldest.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.removesuffix(".*").split("==") for line in lines)
    assert pinned.items() <= least.items()
    assert set(pinned) >= {"numpy", "onnxruntime", "openvino", "torch", "msgspec"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that no build/ of an earlier day lends it modules."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "*.egg-info", "__pycache__", "sdengine-demo", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    return next(folder.glob("*.whl"))


def test_the_wheel_is_whole(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for top in ("benchmarks/bench", "engines", "export", "runtime"):
        for file in (ROOT / top).rglob("*.py"):
            inside = file.relative_to(ROOT).as_posix().replace("runtime/entry/", "")
            listed = f"sdengine/{inside}" in names
            assert listed is (file.parent.name != "training"), "how the demo was trained stays in the repository"
        assert f"sdengine/{top}/py.typed" in names
    for file in (ROOT / "benchmarks" / "bench").iterdir():
        assert file.is_dir() or f"sdengine/benchmarks/bench/{file.name}" in names
    checkpoint = ROOT / "export" / "demo" / "checkpoint"
    for file in checkpoint.rglob("*"):
        if file.is_file():
            assert f"sdengine/export/demo/checkpoint/{file.relative_to(checkpoint).as_posix()}" in names


def test_the_namespace_runs_as_a_module(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-m", "sdengine", "--version"]
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", result.stdout.strip()), result.stderr


@pytest.mark.slow
def test_the_cpu_extra_alone_draws(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    done(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]")
    listed = {entry["name"] for entry in json.loads(done(python, "-m", "pip", "list", "--format", "json"))}
    assert not listed & {"torch", "transformers", "diffusers", "onnx", "openvino", "scipy"}
    sdengine = tmp_path / "venv" / "bin" / "sdengine"
    report = json.loads(
        done(sdengine, "run", bundle_of("sdxl"), "a cat", "--steps", 2, "-o", tmp_path / "cat.png", "--json")
    )
    assert set(report["engines"].values()) == {"onnxruntime"}
    assert (tmp_path / "cat.png").stat().st_size > 100
    least = ("--steps", 1, "--batch", 1, "--rounds", 1, "--runs", 1, "--json")
    report = json.loads(done(sdengine, "bench", bundle_of("sdxl"), *least))
    reason = f'torch is not installed; pip install "{wheel}[export]"'
    assert report["reference"] == {"kind": "absent", "reason": reason}
    assert report["engines"][0]["cases"][0]["difference"] == report["reference"]
    pageless = subprocess.run(
        [str(sdengine), "bench", str(bundle_of("sdxl")), "--report", str(tmp_path / "report")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert pageless.returncode == 1
    assert f'pip install "{wheel}[bench]"' in " ".join(pageless.stderr.split())
    refused = subprocess.run(
        [str(sdengine), "export", "demo", "-o", str(tmp_path / "b")], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert f'pip install "{wheel}[export]"' in " ".join(refused.stderr.split())
