"""What the suite runs on: each GPU engine that is here, and a bundle with its plans."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sdengine.engines.registry import ENGINES

from .setting import Setting

STANDIN = "SDENGINE_STANDIN" in os.environ

if STANDIN:
    from ..engines.trt.on_standin import library
    from ..engines.trt.on_standin.plans import with_plans

    library.install()

_LINES: list[dict[str, Any]] = []


@pytest.fixture(scope="session", params=["tensorrt", "tensorrt-rtx"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine that can run here."""
    reason = ENGINES[request.param].module.unavailable()
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return str(request.param)


@pytest.fixture(scope="session")
def setting(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A bundle with plans for two sizes: the demo's, or on the stand-in a tiny one whose plans ONNX Runtime runs."""
    folder = tmp_path_factory.mktemp(engine)
    if STANDIN:
        sizes = ((64, 64), (64, 96))
        path = with_plans("sd1", folder, sizes=sizes, engine=engine)
        return Setting(path=path, engine=engine, precision="fp32", sizes=sizes, requests=12)
    from .building import built_demo

    return Setting(path=built_demo(engine, folder), engine=engine, precision="fp16", sizes=((128, 128), (96, 128)))


@pytest.fixture
def refittable(engine: str, tmp_path: Path) -> Path:
    """A bundle whose denoiser's plan can be refitted."""
    if STANDIN:
        from sdengine.engines.trt import BuildOptions

        return with_plans("sd1", tmp_path, engine=engine, options=BuildOptions(refit=True))
    from .building import built_demo

    return built_demo(engine, tmp_path, "--refit")


@pytest.fixture
def report() -> Any:
    """Take a line of the report: what was measured, and figures by name."""

    def take(what: str, **figures: Any) -> None:
        _LINES.append({"what": what, **figures})

    return take


@pytest.fixture(scope="session", autouse=True)
def report_file() -> Iterator[None]:
    """Write the report where SDENGINE_GPU_REPORT says, beside what ``sdengine doctor`` tells about the machine."""
    yield
    folder = os.environ.get("SDENGINE_GPU_REPORT")
    if folder is not None:
        from sdengine.runtime.cli.doctor import diagnosis

        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": diagnosis(), "measured": _LINES}, indent=2)
        (Path(folder) / "report.json").write_text(text + "\n")
