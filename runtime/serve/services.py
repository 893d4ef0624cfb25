"""What the routes of a server share, and whether it is ready."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...engines.errors import SdengineError, nearest
from ..request.request import Request
from .api_error import ApiError, api_error
from .limits import LORAS_MOST, STRENGTH_MOST
from .metrics import Metrics
from .model import Model
from .serve_settings import ServeSettings
from .warm_up import warm_up_settings
from .worker import Worker

__all__ = ["Services"]

_log = logging.getLogger("sdengine.serve")

_NAMING_LORAS = ("prompt", "prompt_2", "loras", "cross_attention_kwargs")
_FAILURES_MOST = 3
"""Errors of an engine in a row after which it is not believed to recover."""


@dataclass(kw_only=True)
class Services:
    """A worker, and what is known of the server around it.

    Attributes:
        worker: generates.
        settings: of the server.
        metrics: what is counted.
        warm: whether warming up has ended.
        warming_failed: why it did not.

    """

    worker: Worker
    settings: ServeSettings
    metrics: Metrics
    warm: bool = False
    warming_failed: str | None = None
    _aliases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._aliases = self.settings.aliases

    def model(self, name: str | None) -> Model:
        """Return the model that a request names, or the first.

        Raises:
            ApiError: there is none of that name.

        """
        if name is not None and name not in self._aliases:
            known = ", ".join(self._aliases)
            message = f"The model {name[:200]!r} does not exist; this server has {known}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return self.worker.model(None if name is None else self._aliases[name])

    def answer_to(self, error: SdengineError, fields: Collection[str] = ()) -> ApiError:
        """Return the answer to a request that ended by an error; see :func:`.api_error`.

        Of the server's folders it has the names only. The log has the whole, where the server is to blame.
        """
        answer = api_error(error, fields)
        if answer.status == 500:
            _log.error("a request failed: %s", error)
        for path, name in self.settings.folders.items():
            answer.message = answer.message.replace(path, name)
        return answer

    def check_loras(self, model: Model, settings: Mapping[str, Any]) -> None:
        """Make sure that a body names LoRAs of the folder and no files, and that they are few and not too strong.

        Those that its prompts name count too.

        Raises:
            ApiError: it does not.
            UsageError: a prompt names one that there is not.

        """
        for name, _ in settings.get("loras", ()):
            if not model.pipeline.has_lora(name):
                names = model.pipeline.lora_names
                how = nearest(name, names) if names else "; the server has no --lora-folder, or nothing in it"
                message = f"loras: there is no LoRA {name[:100]!r} here{how}"
                raise ApiError(400, message, param="loras", code="lora_not_found")
        request = Request.from_settings(**{name: settings[name] for name in _NAMING_LORAS if name in settings})
        loras = model.pipeline.loras_of(request)[1]
        if len(loras.sources) > LORAS_MOST:
            message = f"loras: {len(loras.sources)} are named, in prompts too; {LORAS_MOST} are the most"
            raise ApiError(400, message, param="loras", code="invalid_value")
        if any(abs(number) > STRENGTH_MOST for number in loras.numbers):
            message = f"loras: a strength is above {STRENGTH_MOST}, with the scale of cross_attention_kwargs"
            raise ApiError(400, message, param="loras", code="invalid_value")

    @property
    def names(self) -> dict[str, str]:
        """Every name that requests may use -> the name of its model."""
        return self._aliases

    def warm_up_sizes(self) -> list[tuple[Model, int, int]]:
        """Return what is generated before the server is ready: models, widths and heights.

        Raises:
            UsageError: a bundle does not take a size.

        """
        sizes = []
        for model in self.worker.models.values():
            if self.settings.warm_up is None:
                height, width = model.pipeline.bundle.manifest.default_size
                sizes.append((model, width, height))
                continue
            for width, height in self.settings.warm_up:
                model.plan(warm_up_settings(model.pipeline.bundle, height, width))
                sizes.append((model, width, height))
        return sizes

    async def warm_up(self) -> None:
        """Generate each size that was asked for once; then the server is ready."""
        try:
            for model, width, height in self.warm_up_sizes():
                await asyncio.wrap_future(self.worker.warm_up(model.name, height, width))
        except SdengineError as error:
            self.warming_failed = str(error)
            _log.error("warming up failed: %s", error)
            return
        self.warm = True
        _log.info("ready", extra={"engines": self.engines(), "costs_s": self.worker.costs.table()})

    def engines(self) -> dict[str, dict[str, str]]:
        """Return the engines that run each model's components."""
        return {name: dict(model.pipeline.components.ran) for name, model in self.worker.models.items()}

    def unhealthy(self) -> str | None:
        """Return why the server can generate no more, None where it can."""
        status = self.worker.status()
        if not status.alive:
            return status.error or "the worker does not run"
        if status.failures >= _FAILURES_MOST:
            return f"the last {status.failures} launches failed"
        return self.warming_failed

    def check(self) -> None:
        """Refuse a request before its body is read, where it could not be accepted.

        Raises:
            ApiError: the server is not ready.
            SdengineError: see :meth:`.Worker.check`.

        """
        self.check_warm()
        self.worker.check()

    def check_warm(self) -> None:
        """Raise ApiError before warming up has ended."""
        if not self.warm:
            if self.warming_failed is not None:
                raise _not_ready(f"warming up failed: {self.warming_failed}")
            raise _not_ready("the server is warming up", {"retry-after": "1"})


def _not_ready(message: str, headers: Mapping[str, str] | None = None) -> ApiError:
    return ApiError(503, message, kind="service_unavailable", code="not_ready", headers=headers)
