"""What a server says about itself: models, health, readiness, metrics."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from ...engines.bundle.pixel_sizes import pixel_range
from .api_error import ApiError
from .model import Model
from .services import Services

__all__ = ["status_routes"]


def status_routes(services: Services) -> APIRouter:
    """Return the routes that generate nothing."""
    router = APIRouter(tags=["status"])
    worker = services.worker

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Return the models that are served."""
        return {"object": "list", "data": [_described(name, services.model(name)) for name in services.names]}

    @router.get("/v1/models/{name:path}", responses={404: {"description": "There is none of that name."}})
    async def model(name: str) -> dict[str, Any]:
        """Return one of them."""
        return _described(name, services.model(name))

    @router.head("/live", include_in_schema=False)
    @router.get("/live")
    async def live() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "alive"}

    @router.head("/health", include_in_schema=False)
    @router.get("/health", responses={503: {"description": "It cannot generate any more."}})
    async def health() -> JSONResponse:
        """Say whether the worker generates: 503 once it has died, or its engine fails again and again."""
        status, error = worker.status(), services.unhealthy()
        body = {
            "status": "ok" if error is None else "failed",
            "error": error,
            "waiting": status.waiting,
            "running": status.running,
            "active_slots": status.active,
        }
        return JSONResponse(body, 200 if error is None else 503)

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses={503: {"description": "It is not."}})
    async def ready() -> JSONResponse:
        """Say whether requests are accepted: after warming up, and until the server is to end."""
        error = services.unhealthy() or worker.refusing
        try:
            services.check_warm()
        except ApiError as refused:
            error = error or refused.message
        body = {"status": "ready" if error is None else "not ready", "error": error, "engines": services.engines()}
        return JSONResponse(body, 200 if error is None else 503)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' format."""
        return Response(services.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _described(name: str, model: Model) -> dict[str, Any]:
    """Return a model as OpenAI describes one, with what a client must know of the bundle beside it."""
    bundle, components = model.pipeline.bundle, model.pipeline.components
    heights, widths = (pixel_range(bundle, axis) for axis in ("h", "w"))
    height, width = bundle.manifest.default_size
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "sdengine",
        "root": model.name,
        "family": bundle.family.label,
        "default_size": f"{width}x{height}",
        "sizes": {
            "multiple_of": widths.multiple,
            "width": [widths.least, widths.most],
            "height": [heights.least, heights.most],
        },
        "controlnets": len(bundle.manifest.controlnets),
        "loras": model.pipeline.lora_names,
        "slots": model.slots,
        "engines": dict(components.ran),
    }
