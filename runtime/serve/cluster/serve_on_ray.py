"""``sdengine serve --ray``: deploys the application on a cluster, and takes it down at the end."""

import logging
import os
import signal
import threading
from pathlib import Path

import ray
from ray import serve

from ....engines.errors import SdengineError, UsageError
from ..serve_settings import ServeSettings
from .deployment import PROXY_CALLBACK, Share, deployed

__all__ = ["serve_on_ray"]

_log = logging.getLogger("sdengine.serve")

_NAME = "sdengine"
_STORE_BYTES = 512 * 2**20
"""Of the memory that processes share, on a cluster of our own: bodies and answers pass through it."""


def serve_on_ray(
    settings: ServeSettings,
    share: Share,
    *,
    host: str,
    port: int,
    address: str | None = None,
    root_path: str = "",
    ssl_keyfile: Path | None = None,
    ssl_certfile: Path | None = None,
) -> None:
    """Deploy, and serve until SIGTERM or SIGINT.

    Args:
        settings: of each replica.
        share: how many replicas, and what each takes.
        host: address that the proxies listen on.
        port: their port.
        address: of a cluster that runs; None starts one on this machine, which ends with this process.
        root_path: path that a proxy before Ray's strips.
        ssl_keyfile: for HTTPS.
        ssl_certfile: for HTTPS.

    Raises:
        SdengineError: the cluster cannot be reached, or the replicas do not start.

    """
    if not port:
        raise UsageError("--port 0: Ray's proxies need a port that is known")
    os.environ.setdefault(*PROXY_CALLBACK)
    cores = os.cpu_count() or 1
    if address is None and share.replicas * share.cpus > cores:
        wanted = f"{share.replicas} replicas of {share.cpus:g} cores"
        raise UsageError(f"{wanted} do not fit on {cores} cores: lower --replicas or --cpus-per-replica")
    own = {} if address else {"object_store_memory": _STORE_BYTES}
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # it takes SIGTERM for a crash
    ended = threading.Event()
    try:
        application = deployed(settings, share)
        ray.init(address=address, include_dashboard=False, configure_logging=False, log_to_driver=True, **own)
        http = {
            "host": host,
            "port": port,
            "root_path": root_path,
            "ssl_keyfile": ssl_keyfile and str(ssl_keyfile),
            "ssl_certfile": ssl_certfile and str(ssl_certfile),
        }
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray has set its own, which exit at once
            signal.signal(number, lambda *_: ended.set())
        serve.start(proxy_location="EveryNode", http_options=http)
        serve.run(application, name=_NAME, route_prefix="/")
        _log.info("ready", extra={"url": f"http://{host}:{port}", "replicas": share.replicas})
        ended.wait()
        _log.info("ending")
        serve.delete(_NAME)  # replicas end what they have accepted
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise SdengineError(f"Ray Serve: {error}") from error
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()
