"""The application: routes, errors, and the worker's life. Any ASGI server can run it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ...engines.errors import SdengineError
from .api_error import ApiError
from .images_api import image_routes
from .metrics import Metrics
from .middleware import Guard
from .page import page_routes
from .serve_settings import ServeSettings, open_pipelines
from .services import Services
from .status_api import status_routes
from .worker import Worker

__all__ = ["build_app", "create_app"]


def build_app(settings: ServeSettings) -> FastAPI:
    """Open the bundles, and return the application that serves them.

    Raises:
        SdengineError: see :func:`.open_pipelines`; or a bundle does not take a size that is to be generated first.

    """
    metrics = Metrics()
    worker = Worker(
        open_pipelines(settings),
        policy=settings.policy,
        max_num_seqs=settings.max_num_seqs,
        max_num_queued=settings.max_num_queued_reqs,
        watches=[metrics],
    )
    metrics.follow(worker)
    services = Services(worker=worker, settings=settings, metrics=metrics)
    try:
        services.warm_up_sizes()
    except BaseException:
        worker.close()
        raise
    return create_app(services)


def create_app(services: Services, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application around a worker, which is started and closed with it.

    Args:
        services: the worker, and the rest. ``app.state.services`` of what is returned.
        routers: further routes.

    """
    settings = services.settings

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with services.worker:
            warming = asyncio.ensure_future(services.warm_up())
            try:
                yield
            finally:
                warming.cancel()
                await asyncio.gather(warming, return_exceptions=True)

    app = FastAPI(
        title="sdengine",
        summary="Images from compiled diffusion models",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    # The page's before the status': names may have slashes, and its routes begin with the name of a model, too.
    for router in (image_routes(services), page_routes(services), status_routes(services), *routers):
        app.include_router(router)
    app.add_exception_handler(ApiError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(SdengineError, _answer)
    app.add_exception_handler(Exception, _answer)
    app.add_middleware(
        Guard,
        keys=settings.api_keys,
        allowed_origins=settings.allowed_origins,
        limits=settings.limits,
        metrics=services.metrics,
    )
    if settings.allowed_origins:  # around the guard: pages elsewhere may read why they were refused
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app


async def _answer(request: Request, error: Exception) -> JSONResponse:
    """Answer with an error in OpenAI's shape."""
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        message = f"{error.detail}: {request.method} {request.url.path[:200]}"
        error = ApiError(error.status_code, message, code=code, headers=error.headers)
    if isinstance(error, SdengineError):
        services: Services = request.app.state.services
        error = services.answer_to(error)
    if not isinstance(error, ApiError):  # ours to mend; the log has it
        error = ApiError(500, f"{type(error).__name__} (this is a bug in sdengine)", kind="server_error", code="bug")
    return JSONResponse(error.body, error.status, error.headers)
