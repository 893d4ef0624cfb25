"""The rules of the layout: which way imports go, and what a lean process may load."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .bundles import bundle_of

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "onnx", "onnx_ir", "diffusers", "scipy"}
PUBLIC = {
    "sdengine.export": ["export_bundle"],
    "sdengine.runtime": ["Pipeline", "Request", "Result", "Timings"],
    "sdengine.runtime.schedule": ["STATE_SLOTS", "Schedule", "make_schedule", "solver_names"],
}


def imported(file: Path) -> set[str]:
    """Full names of what a module imports, relative imports resolved."""
    package = ["sdengine", *file.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("engines", ("sdengine.export", "sdengine.runtime", "sdengine.benchmarks")),
        ("export", ("sdengine.runtime", "sdengine.benchmarks")),
        ("runtime", ("sdengine.export", "sdengine.benchmarks")),
    ],
)
def test_imports_go_one_way(package: str, forbidden: tuple[str, ...]) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        if package == "runtime" and file.parent.name == "cli":
            continue  # commands import what they need; what `run` loads is looked at below
        for name in imported(file):
            assert not name.startswith(forbidden), f"{file.relative_to(ROOT)} imports {name}"


def test_diffusers_is_an_oracle_only() -> None:
    for package in ("benchmarks/bench", "engines", "export", "runtime"):
        for file in (ROOT / package).rglob("*.py"):
            assert not {name for name in imported(file) if name.split(".")[0] == "diffusers"}, file


def test_only_the_command_line_uses_its_library() -> None:
    for package in ("benchmarks/bench", "engines", "export", "runtime"):
        for file in (ROOT / package).rglob("*.py"):
            if file.parent != ROOT / "runtime" / "cli":
                assert not {name for name in imported(file) if name.split(".")[0] in ("typer", "click")}, file


def test_runtime_never_names_a_heavy_module() -> None:
    for file in (ROOT / "runtime").rglob("*.py"):
        assert not {name for name in imported(file) if name.split(".")[0] in HEAVY}, file


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    assert sorted(importlib.import_module(name).__all__) == sorted(PUBLIC[name])


def test_every_package_is_typed_and_listed() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(["sdengine", *file.parent.relative_to(ROOT).parts])
        for top in ("benchmarks/bench", "engines", "export", "runtime")
        for file in (ROOT / top).rglob("__init__.py")
        if file.parent.name != "training"  # of the demo checkpoint: in the repository alone
    }
    assert listed == found | {"sdengine"}  # the namespace, whose only module makes `python -m sdengine`
    assert all((ROOT / top / "py.typed").is_file() for top in ("benchmarks/bench", "engines", "export", "runtime"))


def fresh(code: str, *args: str) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_draws_is_lean() -> None:
    code = """
import json, sys
from sdengine.runtime import Pipeline
with Pipeline.load(sys.argv[1], engine="onnxruntime") as pipe:
    result = pipe("a cat", num_inference_steps=2, height=40, width=48, seed=1)
assert result.images[0].size == (48, 40)
print(json.dumps(sorted(sys.modules)))
"""
    modules = set(json.loads(fresh(code, str(bundle_of("sdxl")))))
    assert "onnxruntime" in modules
    assert not modules & HEAVY


def test_run_loads_neither_export_nor_benchmarks(tmp_path: Path) -> None:
    code = """
import json, sys
from sdengine.runtime.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(json.dumps(sorted(sys.modules)))
"""
    run = ("run", str(bundle_of("sdxl")), "a cat", "--steps", "1", "-o", str(tmp_path / "a.png"))
    modules = set(json.loads(fresh(code, *run).splitlines()[-1]))
    assert "onnxruntime" in modules
    assert not modules & HEAVY
    assert not [m for m in modules if m.startswith(("sdengine.export", "sdengine.benchmarks"))]


def test_a_process_that_serves_is_lean() -> None:
    code = """
import asyncio, json, sys
from sdengine.runtime.serve.app import build_app
from sdengine.runtime.serve.serve_settings import ServeSettings
app = build_app(ServeSettings(bundles=(sys.argv[1],), opening={"engine": "onnxruntime", "threads": 1}))

async def draw():
    async with app.router.lifespan_context(app):
        ticket = app.state.services.worker.submit(prompt="a", num_inference_steps=2, previews=1, seed=1)
        return await ticket.result()

assert asyncio.run(draw()).images
print(json.dumps(sorted(sys.modules)))
"""
    modules = set(json.loads(fresh(code, str(bundle_of("sdxl")))))
    assert {"onnxruntime", "fastapi"} <= modules
    assert not modules & (HEAVY | {"openvino", "tensorrt", "ray"})


def test_importing_the_runtime_loads_no_engine() -> None:
    modules = set(json.loads(fresh("import sdengine.runtime, json, sys; print(json.dumps(sorted(sys.modules)))")))
    assert not modules & (HEAVY | {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "typer", "fastapi"})
