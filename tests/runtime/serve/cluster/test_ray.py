"""Two replicas on Ray Serve, a real cluster: the same API, and nobody without an answer when one is killed."""

import base64
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ....bundles import bundle_of

ROOT = Path(__file__).parents[4]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "sdengine[ray]"'),
]


class Cluster:
    """``sdengine serve --ray`` with two replicas on a machine of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        options = ["--engine", "onnxruntime", "--threads", "1", "--warm-up", "72x48", "--max-n", "500", "--port", port]
        ray = ["--ray", "--replicas", "2", "--cpus-per-replica", "0.1"]
        command = [sys.executable, "-m", "sdengine.runtime", "serve", str(bundle_of("sd1")), *options, *ray]
        env = {**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        end = time.monotonic() + 180
        while not any('"message": "ready"' in line and line.startswith("{") for line in self.lines):
            assert time.monotonic() < end and self.process.poll() is None, "".join(self.lines)
            time.sleep(0.1)

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def replicas(self) -> list[int]:
        """Return the processes of the replicas."""
        parents, names = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        found = []
        for process, name in names.items():
            ancestor = process
            while ancestor in parents and ancestor != self.process.pid:
                ancestor = parents[ancestor]
            if ancestor == self.process.pid and name.startswith("ray::ServeReplica:sdengine"):
                found.append(process)
        return found

    def draw(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/images/generations", json=body, timeout=120)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(90)
        finally:
            self.process.kill()
            self._reader.join(10)
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    one = Cluster()
    yield one
    replicas = one.replicas()
    assert one.stop() == 0, "".join(one.lines[-50:])
    assert not [process for process in replicas if Path(f"/proc/{process}").exists()], "left running"


@pytest.mark.filterwarnings("ignore")  # of Ray, as it is imported
def test_replicas_and_config_files() -> None:
    from sdengine.engines.errors import UsageError
    from sdengine.runtime.serve.cluster.deployment import PROXY_CALLBACK, replicas_from
    from sdengine.runtime.serve.cluster.ray_app import build

    assert [replicas_from(text) for text in ("3", "2..8", "auto")] == [(3, 3), (2, 8), (1, 100)]
    for text in ("0", "4..2", "many", "2.."):
        with pytest.raises(UsageError, match="--replicas"):
            replicas_from(text)
    bundles = [str(bundle_of("sd1"))]
    service = yaml.safe_load((ROOT / "docs" / "kuberay.yaml").read_text())
    (listed,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert listed["import_path"] == f"{build.__module__.replace('deployment', 'ray_app')}:build"
    assert build({**listed["args"], "bundles": bundles})
    variable, middlewares = PROXY_CALLBACK
    assert {"name": variable, "value": middlewares} in (
        service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    )
    assert build({"bundles": bundles, "engine": "onnxruntime", "limits": {"n": 3}, "replicas": 2, "most": 4})
    with pytest.raises(UsageError, match="did you mean 'policy'"):
        build({"bundles": bundles, "polcy": "step"})


SMALL: dict[str, Any] = {"prompt": "a house", "size": "72x48", "seed": 5}


def test_the_api_is_the_same(cluster: Cluster) -> None:
    assert len(cluster.replicas()) == 2
    answer = cluster.draw(**SMALL, num_inference_steps=3, n=2)
    assert answer.status_code == 200 and answer.json()["seeds"] == [5, 6]
    assert answer.headers["x-request-id"] == answer.json()["id"]
    assert len({cluster.draw(**SMALL, num_inference_steps=3).json()["data"][0]["b64_json"] for _ in range(6)}) == 1
    refused = cluster.draw(**SMALL, num_inference_step=3)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "num_inference_step"
    assert httpx.get(f"{cluster.url}/ready").json()["status"] == "ready"
    assert "page/page.js" in httpx.get(f"{cluster.url}/").text


def test_streams_come_through_the_proxy_event_by_event(cluster: Cluster) -> None:
    body = {**SMALL, "num_inference_steps": 40, "stream": True, "progress": True, "partial_images": 1}
    times, kinds = [], []
    with httpx.stream("POST", f"{cluster.url}/v1/images/generations", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line[6:])
                kinds.append(event["type"].rpartition(".")[2])
                times.append(time.monotonic())
    assert kinds[-1] == "completed" and "partial_image" in kinds and kinds.count("progress") > 1
    assert base64.b64decode(event["b64_json"])
    assert times[-1] > times[0]


def test_who_hangs_up_is_drawn_for_no_longer(cluster: Cluster) -> None:
    """Both replicas have one, so that whichever is asked would say so; drawn to the end, they would take minutes."""

    def leave(_: int) -> None:
        body = {"prompt": "a house", "num_inference_steps": 200, "n": 500}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{cluster.url}/v1/images/generations", json=body, timeout=2)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leave, range(2)))
    end = time.monotonic() + 30
    while any(httpx.get(f"{cluster.url}/health").json()["running"] for _ in range(8)):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_replica_that_is_killed_leaves_nobody_without_an_answer(cluster: Cluster) -> None:
    before = cluster.replicas()
    assert len(before) == 2
    statuses: list[int] = []

    def ask(number: int) -> None:
        answer = cluster.draw(**{**SMALL, "seed": number}, num_inference_steps=100 + number % 100, n=2)
        if answer.status_code == 503:
            assert answer.json()["error"]["type"] == "service_unavailable" and answer.headers["retry-after"]
        else:
            assert answer.json()["seeds"] == [number, number + 1]
        statuses.append(answer.status_code)

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(40)]
        while len(statuses) < 8:
            time.sleep(0.01)
        os.kill(before[0], signal.SIGKILL)
        for one in asked:
            one.result()
    assert len(statuses) == 40 and set(statuses) <= {200, 503}
    assert statuses.count(200) > 30
    end = time.monotonic() + 120
    while len(cluster.replicas()) < 2 or before[0] in cluster.replicas():
        assert time.monotonic() < end, "no other replica was started"
        time.sleep(0.2)


def test_what_was_accepted_ends_before_the_cluster_does(cluster: Cluster) -> None:
    """The last test of this cluster."""
    body = {**SMALL, "num_inference_steps": 200, "n": 10, "stream": True, "progress": True}
    kinds: list[str] = []
    with httpx.stream("POST", f"{cluster.url}/v1/images/generations", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                if not kinds:
                    cluster.process.terminate()
                kinds.append(json.loads(line[6:]).get("type", "error").rpartition(".")[2])
    assert kinds[0] == "progress" and kinds.count("completed") == 10
    assert cluster.stop() == 0, "".join(cluster.lines[-50:])
