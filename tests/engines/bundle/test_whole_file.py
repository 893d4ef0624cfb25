"""A file appears whole or not at all; what killed processes leave is removed; what is no file is not replaced."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sdengine.engines.bundle import whole_file
from sdengine.engines.bundle.whole_file import write_whole

WRITING = """
import sys
from pathlib import Path
from sdengine.engines.bundle.whole_file import write_whole

target, letter = Path(sys.argv[1]), sys.argv[2].encode()
print("ready", flush=True)
while True:
    with write_whole(target) as aside, aside.open("wb") as stream:
        for _ in range(100):
            stream.write(1000 * letter)
"""


def _killed(target: Path, times: int) -> None:
    numbers = random.Random(1)
    target.write_bytes(100_000 * b"a")
    for i in range(times):
        command = [sys.executable, "-c", WRITING, str(target), "ab"[i % 2]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(numbers.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        content = target.read_bytes()
        assert len(content) == 100_000
        assert len(set(content)) == 1
        assert len(list(target.parent.iterdir())) <= 2, "what the process before it left is still there"


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    _killed(tmp_path / "file", 20)


@pytest.mark.slow
def test_two_hundred_kills_leave_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    _killed(tmp_path / "file", 200)


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with write_whole(tmp_path / "one") as aside:
        whole_file._remove_left.cache_clear()
        with write_whole(tmp_path / "two") as other:
            other.write_text("two")
        aside.write_text("one")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["one", "two"]


def test_names_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    with write_whole(tmp_path / ("x" * 255)) as aside:
        aside.write_text("long")
    assert (tmp_path / ("x" * 255)).read_text() == "long"


def test_a_link_goes_on_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with write_whole(tmp_path / "link") as aside:
        aside.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(OSError, match="no regular file"), write_whole(tmp_path / name):
            raise AssertionError("begun all the same")
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this system mounts no tmpfs here")
    try:
        (disk / "file").write_bytes(b"old")
        with pytest.raises(OSError, match="No space left"), write_whole(disk / "file") as aside:
            aside.write_bytes(bytes(100_000))
        assert [f.name for f in disk.iterdir()] == ["file"]
        assert (disk / "file").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
