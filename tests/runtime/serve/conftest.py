"""A real server in a process of its own, shared by the tests of a module."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ...bundles import bundle_of

post = functools.partial(httpx.post, timeout=60)
get = functools.partial(httpx.get, timeout=60)


class Server:
    """``sdengine serve`` on a free port."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, ready: bool = True) -> None:
        command = [sys.executable, "-m", "sdengine.runtime", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for("listening")["url"]
        if ready:
            self._wait_for("ready")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def _wait_for(self, message: str) -> dict[str, Any]:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            for entry in self.log():
                if entry["message"] == message:
                    return entry
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError("".join(self.lines))

    def log(self) -> list[dict[str, Any]]:
        """Return what it has logged so far; every line is JSON."""
        return [json.loads(line) for line in list(self.lines)]

    def metrics(self) -> dict[str, float]:
        """Return its metrics, summed over labels."""
        found: dict[str, float] = {}
        for line in get(f"{self.url}/metrics").text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0].removeprefix("sdengine:")
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def draw(self, timeout: float = 60, **body: Any) -> httpx.Response:
        """Ask for images."""
        return httpx.post(f"{self.url}/v1/images/generations", json=body, timeout=timeout)

    def resident(self) -> int:
        """Return its resident memory, in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """End it in order; return its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join(10)
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextlib.contextmanager
def serving(*arguments: str, **options: Any) -> Iterator[Server]:
    """Serve the tiny bundle while the body runs; nothing that it logs may be a traceback."""
    server = Server(str(bundle_of("sd1")), "--engine", "onnxruntime", "--threads", "1", *arguments, **options)
    try:
        yield server
    finally:
        server.stop()
    assert "Traceback" not in "".join(server.lines), "".join(server.lines)


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A server with the usual settings."""
    with serving("--warm-up", "72x48") as one:
        yield one
