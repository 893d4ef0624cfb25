"""Bad input, engines that fail and Ctrl-C: a message, a status, and nothing left behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ...bundles import bundle_of
from .runs import ENVIRONMENT, MEASURE, bench

BAD = [
    ([], 2, "name a bundle"),
    (["nowhere"], 1, "there is no bundle at nowhere"),
    (["."], 1, "has no manifest.json"),
    (["BUNDLE", "--engine", "onxruntime"], 2, "did you mean 'onnxruntime'"),
    (["BUNDLE", "--engine", "openvino:fp64"], 2, "openvino runs fp32, bf16"),
    (["BUNDLE", "--engine", "onnxruntime", "--engine", "onnxruntime"], 2, "names one twice"),
    (["BUNDLE", "--size", "big"], 2, "write WIDTHxHEIGHT"),
    (["BUNDLE", "--size", "63x64"], 2, "no multiple of 8"),
    (["BUNDLE", "--size", "64x4096"], 2, "the nearest that works is 128"),
    (["BUNDLE", "--batch", "64"], 2, "at most 4 images at once"),
    (["BUNDLE", "--steps", "0"], 2, "--steps"),
    (["BUNDLE", "--runs", "0"], 2, "--runs"),
    (["BUNDLE", "--engine", "onnxruntime", "--device", "cuda"], 2, "onnxruntime runs on cpu"),
    (["BUNDLE", "--engine", "onnxruntime", "--cuda-graph", "loop"], 2, "cuda_graph has no effect on onnxruntime"),
    (["BUNDLE", "--tolerance", "-1"], 2, "--tolerance"),
    (["BUNDLE", "--scheduler", "uler"], 1, "uler"),
    (["BUNDLE", "--compare", "nowhere.json"], 2, "nowhere.json cannot be read"),
    (["BUNDLE", "--compare", "."], 2, "is a folder; name the report.json in it"),
    (["BUNDLE", "--compare", "BUNDLE/manifest.json"], 2, "manifest.json has schema"),
    (["BUNDLE", "--compare", "BUNDLE/components/unet/weights.safetensors"], 2, "is no report"),
    (["BUNDLE", "--from", "x.json"], 2, "leave out the bundle"),
    (["--from", "x.json", "--runs", "3"], 2, "leave out the bundle"),
    (["--from", "x.json"], 2, "x.json cannot be read"),
    (["BUNDLE", "--report", "BUNDLE/manifest.json"], 2, "is a file; --report names a folder"),
    (["BUNDLE", "--report", "BUNDLE/manifest.json/report"], 2, "cannot be made"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "message"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else None
)
def test_bad_input(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    given = [argument.replace("BUNDLE", str(bundle_of("sdxl"))) for argument in arguments]
    done = bench(*given, folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_needs_an_image_is_refused() -> None:
    done = bench(bundle_of("sdxl_inpaint"))
    assert (done.returncode, "this is an inpainting checkpoint" in done.stderr) == (2, True)


def test_an_engine_that_cannot_run_here_is_named(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is an NVIDIA driver")
    done = bench(bundle_of("sdxl"), "--engine", "tensorrt-rtx", "--report", tmp_path / "report")
    assert done.returncode == 1
    assert "tensorrt-rtx cannot be measured here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_not_overwritten(measured: Path) -> None:
    before = (measured / "report.json").read_bytes()
    done = bench("--from", measured / "report.json", "--report", measured)
    assert (done.returncode, "--overwrite" in done.stderr) == (2, True)
    assert bench("--from", measured / "report.json", "--report", measured, "--overwrite").returncode == 0
    assert (measured / "report.json").read_bytes() == before


def test_an_engine_that_fails_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    """A graph of the right size and other contents is found out when the engine opens it, in its own process."""
    bundle = shutil.copytree(bundle_of("sdxl"), tmp_path / "bundle")
    graph = next(bundle.rglob("vae_decoder.fp32.contrib.onnx"))
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    done = bench(bundle, *MEASURE, "--no-reference", "--report", tmp_path / "new" / "report")
    assert done.returncode == 1
    assert "measuring onnxruntime failed" in done.stderr
    assert "is not the file that was exported" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "sdengine.runtime", "bench", str(bundle_of("sdxl")), "--runs", "500"]
    process = subprocess.Popen(
        [*command, "--no-reference", "--report", str(tmp_path / "report")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "round 1" in line, line
        process.send_signal(signal.SIGINT)  # to the parent alone: the child must not need the terminal's signal
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said.rstrip().endswith("error: interrupted")
        deadline = time.monotonic() + 10
        while _is_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_alive(process.pid), "a process of its group lives on"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert list(temporary.glob("sdengine*")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


def _heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, which these tests may have been started as."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
