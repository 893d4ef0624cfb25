"""One replica, and how many of them: a deployment of Ray Serve."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from starlette.types import ASGIApp

from ....engines.bundle.bundle import Bundle
from ....engines.errors import SdengineError, UsageError, nearest
from ..app import build_app
from ..json_logs import JsonFormatter
from ..limits import Limits
from ..serve_settings import ServeSettings

__all__ = ["PROXY_CALLBACK", "Share", "application", "deployed", "replicas_from"]

PROXY_CALLBACK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", f"{__package__}.proxy_middleware:middlewares")
"""The environment variable by which Ray's proxies find their middleware, and its value."""

_HEALTH_PERIOD_S = 5.0
_HEALTH_TIMEOUT_S = 30.0
_BEYOND_DRAINING_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What each replica takes of its machine, and how many there are.

    Attributes:
        replicas: how many, at least.
        most: how many, at most; more than ``replicas`` scales with the requests.
        cpus: cores for each; also the threads of its engines unless the settings say.
        gpus: GPUs for each; a share of one is possible.

    """

    replicas: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


class Images:
    """One replica: the application of a single machine, with a worker of its own."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        _set_up_logs()
        app = await asyncio.to_thread(build_app, self._settings)
        self._services = app.state.services
        return app

    async def check_health(self) -> None:
        """Raise once the worker has died; Ray starts another replica then. The first call waits for warming up."""
        services = self._services
        while not services.warm and services.warming_failed is None:
            await asyncio.sleep(0.05)
        if (reason := services.unhealthy()) is not None:
            raise SdengineError(reason)


def deployed(settings: ServeSettings, share: Share) -> Application:
    """Return the application that Ray is to run.

    Raises:
        UsageError: a setting cannot be met.
        BundleError: a bundle is missing or damaged.

    """
    threads = settings.opening.get("threads")
    if threads is None and share.cpus >= 1 and not share.gpus:
        settings = replace(settings, opening={**settings.opening, "threads": int(share.cpus)})
    settings = replace(settings, bundles=tuple(os.path.abspath(bundle) for bundle in settings.bundles))
    slots = _slots(settings)
    options: dict[str, Any] = {"num_replicas": share.replicas}
    if share.most > share.replicas:
        # A replica is busy when its slots are taken twice: those that are drawn, and as many that wait.
        options = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=share.replicas, max_replicas=share.most, target_ongoing_requests=2 * slots
            )
        }
    deployment = serve.deployment(
        name="sdengine",
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
        # The worker has the queue, and refuses what is too much itself; Ray's counts what all replicas cannot take.
        max_ongoing_requests=settings.max_num_queued_reqs + slots,
        max_queued_requests=settings.max_num_queued_reqs,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=settings.shutdown_timeout + _BEYOND_DRAINING_S,
        **options,
    )
    return deployment(serve.ingress()(Images)).bind(settings)


def application(arguments: Mapping[str, Any]) -> Application:
    """Return the application for a config file of Ray Serve; its ``import_path`` is in :mod:`.ray_app`.

    Args:
        arguments: ``bundles``, and other fields of :class:`.ServeSettings` and :class:`Share` by their names;
            ``engine`` and the like stand for themselves, ``limits`` is an object of :class:`~..limits.Limits`' fields.

    Raises:
        UsageError: a name is unknown.

    """
    rest = dict(arguments)
    limits = Limits(**_checked(rest.pop("limits", {}), Limits))
    share = {field.name: rest.pop(field.name) for field in fields(Share) if field.name in rest}
    opening = {
        name: rest.pop(name) for name in ("engine", "precision", "fallback", "threads", "device") if name in rest
    }
    checked = _checked(rest, ServeSettings)
    listed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in checked.items()
    }
    listed |= {"limits": limits, "opening": {**opening, **checked.get("opening", {})}}
    settings = ServeSettings(**listed)
    return deployed(settings, Share(**{**share, "most": max(share.get("most", 1), share.get("replicas", 1))}))


def replicas_from(text: str) -> tuple[int, int]:
    """Read a number of replicas: ``3``, ``2..8``, or ``auto`` (1 to 100).

    Raises:
        UsageError: it is none of them.

    """
    least, sign, most = ("1", "..", "100") if text == "auto" else text.partition("..")
    if not least.isdecimal() or (sign and not most.isdecimal()):
        raise UsageError(f"--replicas {text!r} is neither a number, nor a range like 2..8, nor auto")
    bounds = int(least), int(most or least)
    if not 1 <= bounds[0] <= bounds[1]:
        raise UsageError(f"--replicas {text!r}: from 1 on, the smaller number first")
    return bounds


def _checked(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    for name in values:
        if name not in names:
            raise UsageError(f"unknown argument {name!r}{nearest(name, names)}")
    return dict(values)


def _slots(settings: ServeSettings) -> int:
    """Return how many images of the largest bundle share a launch."""
    graphs = (Bundle(Path(bundle)).component("denoiser").graphs for bundle in settings.bundles)
    most = max(next(iter(graph.values())).spec.axes["S"].max for graph in graphs)
    return most if settings.max_num_seqs is None else min(most, settings.max_num_seqs)


def _set_up_logs() -> None:
    """Write the server's logs as JSON lines; Ray's own stay as they are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("sdengine")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
