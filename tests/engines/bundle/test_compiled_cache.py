"""What engines made of a graph is cached for the user: used if it can be trusted, made again if not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sdengine.engines.bundle import compiled_cache as compiled_cache
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.compiled_cache import CompiledCache
from sdengine.engines.engine import Array, run
from sdengine.engines.ort import onnxruntime_cpu
from sdengine.engines.ov import compiled_variants, openvino_cpu
from sdengine.engines.registry import open_engine

from ...bundles import bundle_of

pytest.importorskip("openvino")

COMPONENT = "vae_decoder"
ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of one's own, and a cache of one's own, in which there is nothing yet."""
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "bundle"
    shutil.copytree(bundle_of("sd1"), target)
    return target


def _open(folder: Path, engine: str, **options: Any) -> Any:
    return open_engine(Bundle(folder), COMPONENT, engine=engine, precision="fp32", **options).engine


def _draw(engine: Any) -> Array:
    """Generate at the sizes that the bundle is optimised for: there OpenVINO needs only one variant."""
    shape = engine.spec.input("latent").resolve({axis: allowed.opt for axis, allowed in engine.spec.axes.items()})
    latent = np.random.default_rng(0).standard_normal(shape, np.float32)
    outputs = run(engine, {"latent": latent})
    return outputs["image"]


def _files(folder: Path, engine: str) -> list[Path]:
    return sorted((folder.parent / "cache" / "compiled" / engine).glob(f"{COMPONENT}-*"))


def _forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is optimised or compiled from here on is an error: the ONNX file itself may not be opened."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    def session(source: Any, *args: Any, **options: Any) -> Any:
        assert isinstance(source, bytes)
        return real(source, *args, **options)

    def compiled(*args: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(compiled_variants, "compiled", compiled)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_second_start_uses_what_the_first_made(folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _draw(_open(folder, engine))
    assert len(_files(folder, engine)) == 1
    _forbid_compiling(monkeypatch)
    again = _open(folder, engine)
    assert (again.notes, again.precision) == ([], "fp32")
    np.testing.assert_array_equal(_draw(again), first)


@pytest.mark.skipif(openvino_cpu.preferred(["fp32"]) != "bf16", reason="the CPU has no bfloat16")
def test_a_model_in_two_parts_is_cached_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def conditioned() -> dict[str, Array]:
        engine = open_engine(Bundle(folder), "denoiser", engine="openvino", precision="bf16").engine
        assert engine.precision == "bf16"
        axes = {"S": 1, "R": 2, "T": 77, "h": 8, "w": 6}
        inputs = {t.name: np.ones(t.resolve(axes), t.dtype) for t in engine.spec.inputs}
        inputs["row_sample"][:] = 0
        return run(engine, inputs)

    first = conditioned()
    _forbid_compiling(monkeypatch)
    np.testing.assert_array_equal(conditioned()["next_state"], first["next_state"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", [0, 10, -1], ids=["head", "record", "body"])
def test_a_damaged_file_is_not_used_and_made_again(folder: Path, engine: str, place: int) -> None:
    expected = _draw(_open(folder, engine))
    [file] = _files(folder, engine)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1
    file.write_bytes(damaged)
    opened = _open(folder, engine)
    assert len(opened.notes) == 1
    assert "is damaged" in opened.notes[0]
    np.testing.assert_array_equal(_draw(opened), expected)
    assert _open(folder, engine).notes == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_the_library_refuses_is_made_again(folder: Path, engine: str) -> None:
    """Whole by its hash, and yet of no use."""
    expected = _draw(_open(folder, engine))
    [file] = _files(folder, engine)
    head, _, _ = file.read_bytes().partition(b"\n")
    body = msgspec.msgpack.encode([b"no model"])
    record = msgspec.json.decode(head) | {"sha256": compiled_cache.hashlib.sha256(body).hexdigest()}
    file.write_bytes(msgspec.json.encode(record) + b"\n" + body)
    opened = _open(folder, engine)
    assert "was not used" in opened.notes[0]
    np.testing.assert_array_equal(_draw(opened), expected)
    assert _open(folder, engine).notes == []


def _cache(folder: Path, **settings: str) -> CompiledCache:
    bundle = Bundle(folder)
    graph = bundle.graph(COMPONENT, "fp32").file
    return CompiledCache(
        bundle, COMPONENT, graph, engine="openvino", settings={"version": "1", "precision": "fp32"} | settings
    )


def test_models_are_of_a_version_a_precision_a_processor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cache(folder).write(b"model")
    assert _cache(folder).read() == b"model"
    assert _cache(folder, version="2").read() is None
    assert _cache(folder, precision="bf16").read() is None
    monkeypatch.setattr(compiled_cache, "processor", lambda: "another")
    assert _cache(folder).read() is None


def test_a_file_of_another_key_under_this_name_is_refused(folder: Path) -> None:
    other = _cache(folder, version="2")
    other.write(b"other")
    mine = _cache(folder)
    assert other.file is not None and mine.file is not None
    other.file.rename(mine.file)
    assert mine.read() is None
    assert "is damaged" in mine.notes[0]


def test_models_that_are_large_are_not_cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cache, "LIMIT", 10 * 2**20)
    _cache(folder).write(bytes(11 * 2**20))
    assert not _files(folder, "openvino")
    monkeypatch.setattr(compiled_cache, "LIMIT", 1)
    cache = _cache(folder)
    assert not cache.fits_limit()
    cache.write(b"")
    _open(folder, "openvino")
    assert not _files(folder, "openvino")


def test_what_was_used_longest_ago_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cache, "_FILES", 8)
    for version in range(12):
        cache = _cache(folder, version=str(version))
        cache.write(b"model")
        assert cache.file is not None
        os.utime(cache.file, (version, version))
    assert len(_files(folder, "openvino")) == 8
    assert _cache(folder, version="11").read() == b"model"
    assert _cache(folder, version="0").read() is None
    assert _cache(folder, version="4").read() == b"model"  # and with that it is the last to have been used
    _cache(folder, version="12").write(b"model")
    assert _cache(folder, version="4").read() == b"model"
    assert _cache(folder, version="5").read() is None


def _in_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "cache").write_text("a file")


def _no_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDENGINE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))


def _open_to_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "cache" / "compiled").mkdir(parents=True)
    (folder.parent / "cache" / "compiled").chmod(0o777)


def _of_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    (folder.parent / "cache").mkdir()
    os.chown(folder.parent / "cache", 12345, 12345)


@pytest.mark.parametrize("obstacle", [_in_the_way, _no_home, _open_to_all, _of_another])
@pytest.mark.parametrize("engine", ENGINES)
def test_where_nothing_can_be_cached_it_goes_on_and_says_so(
    folder: Path, engine: str, obstacle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstacle(folder, monkeypatch)
    opened = _open(folder, engine)
    assert "the next start compiles again" in opened.notes[0]
    assert np.isfinite(_draw(opened)).all()
    assert not _files(folder, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_disk_that_takes_no_more_is_no_failure(folder: Path, engine: str) -> None:
    """Files may have 1 KiB at most, which stops every way of writing one."""
    code = (
        "import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "from sdengine.engines.bundle.bundle import Bundle; from sdengine.engines.registry import open_engine\n"
        f"opened = open_engine(Bundle(sys.argv[1]), {COMPONENT!r}, engine={engine!r}, precision='fp32').engine\n"
        "assert 'compiles again' in opened.notes[0], opened.notes\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=120)
    assert not _files(folder, engine)
    assert not [f for f in (folder.parent / "cache").rglob("*") if not f.is_dir()]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_others_could_have_written_is_not_used(folder: Path, engine: str) -> None:
    expected = _draw(_open(folder, engine))
    [file] = _files(folder, engine)
    file.chmod(0o666)
    opened = _open(folder, engine)
    assert "can be written by other users" in opened.notes[0]
    np.testing.assert_array_equal(_draw(opened), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_folder_in_the_place_of_a_file_is_no_failure(folder: Path, engine: str) -> None:
    expected = _draw(_open(folder, engine))
    [file] = _files(folder, engine)
    file.unlink()
    file.mkdir()
    opened = _open(folder, engine)
    assert f"{file} is no regular file" in opened.notes[0]
    np.testing.assert_array_equal(_draw(opened), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_read_from_the_bundle(folder: Path, engine: str) -> None:
    """A bundle that brings a cache does not choose the native code that runs."""
    _open(folder, engine)
    shutil.move(folder.parent / "cache", folder / "cache")
    assert _open(folder, engine).notes == []
    assert len(_files(folder, engine)) == 1


def test_processes_that_start_together_do_not_harm_each_other(folder: Path) -> None:
    code = (
        "import sys\n"
        "from sdengine.engines.bundle.bundle import Bundle\n"
        "from sdengine.engines.registry import open_engine\n"
        "for _ in range(3):\n"
        f"    engine = open_engine(Bundle(sys.argv[1]), {COMPONENT!r}, engine='openvino', precision='fp32').engine\n"
        "    assert engine.notes == [], engine.notes\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert len(_files(folder, "openvino")) == 1
    assert not list((folder.parent / "cache").rglob(".*"))


def test_the_library_versions_are_in_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine, module in (("onnxruntime", onnxruntime_cpu), ("openvino", openvino_cpu)):
        _open(folder, engine)
        monkeypatch.setattr(module, "version", lambda: "another")
        _open(folder, engine)
        assert len(_files(folder, engine)) == 2
