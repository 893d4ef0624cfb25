"""A folder appears whole or not at all, whatever kills its process; what the dead leave is found and removed."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdengine.engines.bundle import whole_folder as module
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.foreign_files import foreign_files
from sdengine.engines.bundle.manifest import SCHEMA
from sdengine.engines.bundle.whole_folder import whole_folder
from sdengine.engines.errors import BundleError, SdengineError, UsageError

from ...bundles import bundle_of

COPY = """
import os, shutil, signal, sys
from pathlib import Path
from sdengine.engines.bundle import whole_folder as module
from sdengine.engines.bundle.foreign_files import foreign_files

source, target, stop, exchange = sys.argv[1:]
calls = 0

def stopping(real):
    def call(*args, **options):
        global calls
        result = None
        for moment in ("before", "after"):
            if calls == int(stop):
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            if moment == "before":
                result = real(*args, **options)
        return result
    return call

Path.rename = stopping(Path.rename)
module.exchanged = stopping(module.exchanged) if exchange == "yes" else lambda one, other: False
shutil.rmtree = stopping(shutil.rmtree)
print("ready", flush=True)
with module.whole_folder(Path(target), overwrite=True, foreign=foreign_files) as folder:
    shutil.copytree(source, folder, dirs_exist_ok=True)
"""
"""Copies a bundle as an export writes one, and kills itself at a step of putting it in place."""


def _copying(source: Path, target: Path, stop: int = -1, exchange: str = "yes") -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", COPY, str(source), str(target), str(stop), exchange]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _end(process: "subprocess.Popen[bytes]") -> int:
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_of("sd1"), tmp_path / "in" / "bundle"))


def _is_one_of_two(target: Path) -> str:
    """Return the family of a bundle after checking that it is whole."""
    bundle = Bundle(target, verify="always")
    for name in bundle.manifest.files:
        bundle.checked_file(name)
    return bundle.manifest.family


def _leftovers(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if path != target]


@pytest.mark.parametrize("exchange", ["yes", "no"])
@pytest.mark.parametrize("stop", range(8))
def test_a_bundle_survives_a_kill_at_every_step_of_being_replaced(old: Path, stop: int, exchange: str) -> None:
    process = _copying(bundle_of("sdxl"), old, stop, exchange)
    _end(process)
    assert _is_one_of_two(old) in ("sd1", "sdxl")
    assert _end(_copying(bundle_of("sdxl"), old)) == 0
    assert _is_one_of_two(old) == "sdxl"
    assert _leftovers(old) == []


def _killed_at_random(old: Path, times: int) -> None:
    numbers = random.Random(5)
    families = set()
    started = time.perf_counter()
    assert _end(_copying(bundle_of("sd1"), old)) == 0
    longest = 1.5 * (time.perf_counter() - started)
    for _ in range(times):
        process = _copying(bundle_of(numbers.choice(["sd1", "sdxl"])), old)
        time.sleep(numbers.uniform(0, longest))
        process.send_signal(numbers.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]))
        _end(process)
        families.add(_is_one_of_two(old))
        assert len(_leftovers(old)) <= 1
    assert families == {"sd1", "sdxl"}


def test_a_bundle_survives_kills_at_random_moments(old: Path) -> None:
    _killed_at_random(old, 15)


@pytest.mark.slow
def test_a_bundle_survives_two_hundred_kills_at_random_moments(old: Path) -> None:
    _killed_at_random(old, 200)


def test_a_living_process_is_left_alone(old: Path) -> None:
    with whole_folder(old, overwrite=True, foreign=foreign_files) as folder:
        shutil.copytree(bundle_of("sd1"), folder, dirs_exist_ok=True)
        assert _end(_copying(bundle_of("sdxl"), old)) == 0
        assert (folder / "manifest.json").is_file()
        assert _is_one_of_two(old) == "sdxl"
    assert _is_one_of_two(old) == "sd1"
    assert _leftovers(old) == []


def test_what_only_looks_like_ours_is_not_deleted(old: Path) -> None:
    names = [".bundle.partial-notes", ".bundle.old-0123456789abcde", ".other.partial-0123456789abcdef"]
    for name in names:
        (old.parent / name).mkdir()
    _written("sd1", old, overwrite=True)
    assert sorted(_leftovers(old)) == sorted(names)


def _written(source: str, target: Path, *, overwrite: bool, then: Callable[[], None] | None = None) -> None:
    with whole_folder(target, overwrite=overwrite, foreign=foreign_files) as folder:
        shutil.copytree(bundle_of(source), folder, dirs_exist_ok=True)
        if then is not None:
            then()


def test_two_at_once(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(UsageError, match="exists already"):
        _written("sd1", target, overwrite=False, then=lambda: _written("sdxl", target, overwrite=False))
    assert _is_one_of_two(target) == "sdxl"
    _written("sdxl", target, overwrite=True, then=lambda: _written("sd1", target, overwrite=True))
    assert _is_one_of_two(target) == "sdxl"
    assert _leftovers(target) == []


def _fail(one: Path, other: Path) -> bool:
    return False


def test_where_the_second_rename_fails_the_first_is_undone(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "exchanged", _fail)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(5, "broken on purpose")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(SdengineError, match="could not be written: broken on purpose"):
        _written("sdxl", old, overwrite=True)
    assert _is_one_of_two(old) == "sd1"
    assert _leftovers(old) == []


def test_a_link_to_a_bundle_goes_on_pointing_to_it(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    _written("sdxl", link, overwrite=True)
    assert link.is_symlink()
    assert _is_one_of_two(old) == "sdxl"


def _thesis(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("only copy")
    return "thesis.txt"


def _web_page(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "an app", "files": {"thesis.txt": 1}}')
    return "manifest.json"


def _beside(folder: Path) -> str:
    (folder / "components" / "notes").mkdir()
    (folder / "components" / "notes" / "mine.txt").write_text("only copy")
    return "components/notes/mine.txt"


def _linked(folder: Path) -> str:
    (folder / "pictures").symlink_to(folder.parent)
    return "pictures"


def _listed(folder: Path, name: str, content: bytes) -> str:
    """Put a file into a bundle, and list it in the manifest as its author would, with its hash."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return name


def _forged(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"schema": 3, "family": "sd", "networks": {}, "files": {}}')
    return _listed(folder, "thesis.docx", b"PK only copy")


def _listed_beside(folder: Path) -> str:
    return _listed(folder, "components/unet/notes.txt", b"only copy")


def _text_as_weights(folder: Path) -> str:
    return _listed(folder, "components/unet/weights.safetensors", b"only copy of a thesis")


def _text_as_graph(folder: Path) -> str:
    return _listed(folder, "components/unet/denoiser.fp32.onnx", b"only copy of a thesis")


def _prose_as_merges(folder: Path) -> str:
    return _listed(folder, "tokenizer/merges.txt", b"only copy of a thesis\n")


def _list_as_settings(folder: Path) -> str:
    return _listed(folder, "scheduler.json", b"[1, 2, 3]")


def _pipe_as_settings(folder: Path) -> str:
    (folder / "scheduler.json").unlink()
    os.mkfifo(folder / "scheduler.json")
    return "scheduler.json"


def _own_with_damaged_manifest(folder: Path) -> str:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[:-100])
    (folder / "thesis.docx").write_bytes(b"PK only copy")
    return "thesis.docx"


def _deep(folder: Path) -> str:
    (folder / "manifest.json").write_text("[" * 100_000)
    return "components"


FORGED = [_forged, _listed_beside, _text_as_weights, _text_as_graph, _prose_as_merges, _list_as_settings]


@pytest.mark.parametrize(
    "put",
    [_thesis, _web_page, _beside, _linked, _deep, *FORGED, _pipe_as_settings, _own_with_damaged_manifest],
)
def test_what_is_not_ours_is_never_deleted(old: Path, put: Callable[[Path], str]) -> None:
    name = put(old)
    before = sorted(old.rglob("*"))
    with (
        pytest.raises(UsageError, match=f"{name}.* would be lost; choose another name, or move that elsewhere"),
        whole_folder(old, overwrite=True, foreign=foreign_files),
    ):
        raise AssertionError("begun all the same")
    assert sorted(old.rglob("*")) == before


def _came(folder: Path) -> None:
    (folder / "came.txt").write_text("meanwhile")


def test_what_came_while_it_was_written_is_not_deleted(old: Path) -> None:
    with pytest.raises(UsageError, match=r"came\.txt would be lost"):
        _written("sdxl", old, overwrite=True, then=lambda: _came(old))
    assert (old / "came.txt").read_text() == "meanwhile"
    assert _is_one_of_two(old) == "sd1"


@pytest.mark.parametrize("exchange", ["yes", "no"])
def test_what_came_at_the_last_moment_is_not_deleted(old: Path, exchange: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.check_target
    calls = []

    def check(target: Path, **options: Any) -> None:
        real(target, **options)
        calls.append(target)
        if len(calls) == 2:
            _came(old)

    monkeypatch.setattr(module, "check_target", check)
    if exchange == "no":
        monkeypatch.setattr(module, "exchanged", _fail)
    with pytest.raises(UsageError, match=r"came\.txt would be lost"):
        _written("sdxl", old, overwrite=True)
    assert (old / "came.txt").read_text() == "meanwhile"
    assert _is_one_of_two(old) == "sd1"
    assert _leftovers(old) == []


@pytest.mark.parametrize("family", ["sdxl", "kandinsky"])
def test_what_an_export_writes_is_ours(family: str) -> None:
    assert foreign_files(bundle_of(family)) == []


def _cut_off(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[:-100])


def _zeroed(folder: Path) -> None:
    file = folder / "components" / "unet" / "weights.safetensors"
    size = file.stat().st_size
    file.unlink()
    file.write_bytes(bytes(size))


@pytest.mark.parametrize("damage", [_cut_off, _zeroed])
def test_a_damaged_bundle_may_be_replaced(old: Path, damage: Callable[[Path], None]) -> None:
    damage(old)
    _written("sdxl", old, overwrite=True)
    assert _is_one_of_two(old) == "sdxl"


def test_an_empty_folder_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    _written("sdxl", tmp_path / "bundle", overwrite=True)
    assert _is_one_of_two(tmp_path / "bundle") == "sdxl"


def test_bundles_of_other_schemas_and_what_versions_left_in_them_may_be_replaced(old: Path) -> None:
    text = (old / "manifest.json").read_text().replace(f'"schema": {SCHEMA}', '"schema": 1')
    (old / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="has schema 1"):
        Bundle(old)
    (old / "cache" / "openvino").mkdir(parents=True)
    (old / "cache" / "openvino" / f"denoiser-{'0' * 20}").touch()
    (old / ".sdengine-0123456789abcdef.partial").touch()
    (old / "components" / "unet" / ".sdengine-0123456789abcdef.partial").touch()
    assert foreign_files(old) == []


def test_a_full_disk_is_said_and_leaves_nothing(old: Path) -> None:
    code = (
        "import sys, resource, shutil; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "from pathlib import Path\n"
        "from sdengine.engines.bundle.whole_folder import whole_folder\n"
        "from sdengine.engines.errors import SdengineError\n"
        "from sdengine.engines.bundle.foreign_files import foreign_files\n"
        "try:\n"
        "    with whole_folder(Path(sys.argv[1]), overwrite=True, foreign=foreign_files) as folder:\n"
        "        (folder / 'large').write_bytes(bytes(20_000))\n"
        "except SdengineError as error:\n"
        "    assert 'could not be written: File too large' in str(error), error\n"
    )
    subprocess.run([sys.executable, "-c", code, str(old)], check=True, timeout=60)
    assert _is_one_of_two(old) == "sd1"
    assert _leftovers(old) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights(old: Path) -> None:
    old.parent.chmod(0o555)
    try:
        with (
            pytest.raises(UsageError, match="cannot write to"),
            whole_folder(old, overwrite=True, foreign=foreign_files),
        ):
            raise AssertionError("begun all the same")
    finally:
        old.parent.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("bound", "message"), [(False, "is where a disk is mounted"), (True, "could not be written")])
def test_where_a_disk_is_mounted_nothing_is_replaced(old: Path, bound: bool, message: str) -> None:
    """A folder of the same disk that is mounted a second time is found out only when it is to be replaced."""
    how = ["--bind", str(old), str(old)] if bound else ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(old)]
    if subprocess.run(["mount", *how], check=False).returncode:
        pytest.skip("this system mounts nothing here")
    try:
        with (
            pytest.raises(SdengineError, match=message),
            whole_folder(old, overwrite=True, foreign=foreign_files) as folder,
        ):
            shutil.copytree(bundle_of("sdxl"), folder, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", str(old)], check=True)
    assert _is_one_of_two(old) == "sd1"
    assert _leftovers(old) == []
