"""What HTTP costs a request: what a client waits for, less what the worker took.

    python benchmarks/serving_http.py sdengine-demo/bundle [--engine onnxruntime] [--requests 200]

Starts `sdengine serve` in a process of its own, says how long until it is ready, and sends one request after another
over one connection, as one client. Two rows: an image as base64 in JSON, and as a stream of events.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

BODY = {"prompt": "a red circle", "num_inference_steps": 2, "seed": 1}
WARM = 10


@contextmanager
def server(bundle: str, engine: str) -> Iterator[tuple[int, float]]:
    """Yield the port of a server that is ready, and the seconds from starting its process until then."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sdengine.runtime", "serve", bundle, "--port", str(port), "--engine", engine]
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not _ready(port):
            if process.poll() is not None:
                sys.exit(f"the server ended with status {process.returncode}")
            time.sleep(0.02)
        yield port, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def _ready(port: int) -> bool:
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
    except OSError:
        return False


def over_http(port: int, requests: int, *, stream: bool) -> list[float]:
    """Return the milliseconds of each request beside its worker's."""
    body = json.dumps({**BODY, "stream": stream}).encode()
    beside = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for i in range(WARM + requests):
            started = time.perf_counter()
            connection.request("POST", "/v1/images/generations", body, {"content-type": "application/json"})
            content = connection.getresponse().read()
            waited = (time.perf_counter() - started) * 1e3
            if i >= WARM:
                beside.append(waited - _answer(content, stream=stream)["timings_ms"]["total"])
    return beside


def _answer(content: bytes, *, stream: bool) -> dict[str, Any]:
    if not stream:
        return dict(json.loads(content))
    data = [line.removeprefix("data: ") for line in content.decode().splitlines() if line.startswith("data: ")]
    return next(event for text in data if "timings_ms" in (event := json.loads(text)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--starts", type=int, default=5, help="of the server")
    args = parser.parse_args()
    ready = []
    for _ in range(args.starts):
        with server(args.bundle, args.engine) as (port, seconds):
            ready.append(seconds)
            last = len(ready) == args.starts
            rows = {s: over_http(port, args.requests, stream=s) for s in (False, True)} if last else {}
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {args.engine}")
    print(
        f"ready after {statistics.median(ready):.2f} s ({min(ready):.2f} to {max(ready):.2f}, {args.starts} starts)\n"
    )
    print("| answer | ms beside the worker, median | p90 | least |\n| --- | ---: | ---: | ---: |")
    for stream, beside in rows.items():
        p90 = statistics.quantiles(beside, n=10)[-1]
        name = "events" if stream else "JSON"
        print(f"| {name} | {statistics.median(beside):.2f} | {p90:.2f} | {min(beside):.2f} |")


if __name__ == "__main__":
    main()
