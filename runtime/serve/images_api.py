"""``/v1/images/generations`` and ``/v1/images/edits``, as the `openai` client calls them."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...engines.errors import SdengineError
from .answer import completed_event, event, images_answer, partial_event, progress_event
from .api_error import ApiError
from .api_request import ApiRequest, api_request_from
from .body import discard, fields_of
from .body_fields import ALL_FIELDS
from .events import ClientGoneError, EventStream, unless_gone
from .schema import body_schema, error_schema
from .services import Services
from .ticket import Outcome, Preview, Progress, Ticket

__all__ = ["image_routes"]

_GONE = 499
"""What nobody reads, but the log and the metrics."""


def image_routes(services: Services) -> APIRouter:
    """Return the routes that generate."""
    router = APIRouter(prefix="/v1/images", tags=["images"])
    limits, worker = services.settings.limits, services.worker

    async def answer(request: Request, kind: str, *, form: bool) -> Response:
        request_id, body, ticket = request.state.request_id, dict[str, Any](), None
        try:
            try:
                services.check()
            except (ApiError, SdengineError):
                await discard(request.receive)
                raise
            body = await fields_of(request, form=form)
            api_request = await asyncio.to_thread(api_request_from, body, limits)
            if form and api_request.settings.get("image") is None:
                raise ApiError(400, "image is missing: send the picture to edit", param="image", code="missing_field")
            model = services.model(api_request.model)
            await asyncio.to_thread(services.check_loras, model, api_request.settings)
            request.state.log = {"model": model.name, "stream": api_request.stream}
            ticket = await asyncio.to_thread(_submitted, api_request, model.name, request_id)
            name = api_request.model or model.name
            if api_request.stream:
                events = functools.partial(_events, services, kind, api_request, ticket, name, request_id)
                return EventStream(events, heartbeat=services.settings.sse_keep_alive_interval, on_close=ticket.cancel)
            content = await unless_gone(request, _content(api_request, ticket, name, request_id))
        except (ApiError, SdengineError) as error:
            refused = error if isinstance(error, ApiError) else services.answer_to(error, ALL_FIELDS)
            if refused.param not in body and (sent := _OPENAIS.get(str(refused.param))) in body:
                refused.param = sent
            if ticket is None:
                services.metrics.refused(refused)
            raise refused from error
        except (ClientGoneError, ClientDisconnect):
            return Response(status_code=_GONE)
        return Response(content, media_type="application/json")

    def _submitted(api_request: ApiRequest, model: str, request_id: str) -> Ticket:
        return worker.submit(
            model,
            priority=api_request.priority,
            timeout=api_request.timeout,
            previews=api_request.partial_images,
            request_id=request_id,
            **api_request.settings,
        )

    schema = body_schema(limits)
    bodies: dict[str, Any] = {"application/json": {"schema": schema}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": {"schema": error_schema()}}}
        for status, text in _STATUSES.items()
    }
    described = {"required": True, "content": bodies}

    @router.post("/generations", responses=responses, openapi_extra={"requestBody": described})
    async def generations(request: Request) -> Response:
        """Generate images of a prompt."""
        return await answer(request, "image_generation", form=False)

    edited = {**schema, "required": ["prompt", "image"]}
    both = {**described, "content": {"application/json": {"schema": edited}, "multipart/form-data": {"schema": edited}}}

    @router.post("/edits", responses=responses, openapi_extra={"requestBody": both})
    async def edits(request: Request) -> Response:
        """Generate over an image, or repaint what a mask names."""
        return await answer(request, "image_edit", form=True)

    return router


_OPENAIS = {"height": "size", "width": "size", "num_images_per_prompt": "n", "mask_image": "mask"}
"""OpenAI's names for fields of a request."""
_STATUSES = {
    400: "A field cannot be obeyed.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    408: "The body did not come.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "The images are not finite with these settings.",
    429: "Too many requests wait.",
    503: "The server warms up, ends, or cannot generate.",
    504: "The request's time was over.",
}


async def _content(api_request: ApiRequest, ticket: Ticket, model: str, request_id: str) -> bytes:
    outcome = await ticket.result()
    return await asyncio.to_thread(_json, api_request, outcome, model, request_id)


def _json(api_request: ApiRequest, outcome: Outcome, model: str, request_id: str) -> bytes:
    return json.dumps(images_answer(api_request, outcome, model, request_id), separators=(",", ":")).encode()


async def _events(
    services: Services, kind: str, api_request: ApiRequest, ticket: Ticket, model: str, request_id: str
) -> AsyncIterator[bytes]:
    """Yield the events of a stream; images are encoded on other threads."""
    try:
        async with aclosing(ticket.events()) as happened:
            async for one in happened:
                if isinstance(one, Progress):
                    if api_request.progress:
                        yield event(progress_event(kind, one))
                elif isinstance(one, Preview):
                    yield event(await asyncio.to_thread(partial_event, kind, api_request, one))
                else:
                    yield event(await asyncio.to_thread(completed_event, kind, api_request, one, model, request_id))
    except SdengineError as error:
        yield event(services.answer_to(error, ALL_FIELDS).body)
