"""Answers: images as OpenAI's clients read them, in one JSON object or as events of a stream."""

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from PIL import Image

from ..decode.image_file import ImageRecord, encoded_image
from .api_request import ApiRequest
from .ticket import Finished, Outcome, Preview, Progress

__all__ = ["completed_event", "event", "images_answer", "partial_event", "progress_event"]

_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def _encoded(image: Image.Image, api_request: ApiRequest, record: ImageRecord | None) -> str:
    """Return an image's file as base64."""
    data = encoded_image(image, api_request.output_format, record, quality=api_request.quality)
    return base64.b64encode(data).decode()


def _record(api_request: ApiRequest, outcome: Outcome, index: int) -> ImageRecord:
    """Return what made an image, which goes into its file."""
    settings = api_request.settings
    return ImageRecord(
        prompt=settings.get("prompt") or "",
        negative_prompt=settings.get("negative_prompt"),
        seed=outcome.seeds[index],
        width=outcome.width,
        height=outcome.height,
        settings=outcome.settings,
        engines=outcome.engines,
    )


def _data(api_request: ApiRequest, outcome: Outcome, index: int) -> dict[str, Any]:
    """Return one entry of an answer's ``data``; takes some milliseconds."""
    text = _encoded(outcome.images[index], api_request, _record(api_request, outcome, index))
    about = {"seed": outcome.seeds[index], "nsfw_content_detected": outcome.nsfw[index]}
    if api_request.response_format == "url":
        return {"url": f"data:{_TYPES[api_request.output_format]};base64,{text}", **about}
    return {"b64_json": text, **about}


def images_answer(api_request: ApiRequest, outcome: Outcome, model: str, request_id: str) -> dict[str, Any]:
    """Return the answer to a request that is done; takes some milliseconds for each image."""
    return {
        "created": int(time.time()),
        "background": "opaque",
        "data": [_data(api_request, outcome, i) for i in range(len(outcome.images))],
        "output_format": api_request.output_format,
        "quality": "auto",
        "size": f"{outcome.width}x{outcome.height}",
        **_about(api_request, outcome, model, request_id),
    }


def _about(api_request: ApiRequest, outcome: Outcome, model: str, request_id: str) -> dict[str, Any]:
    """Return what OpenAI's answers do not have: how the images were made."""
    return {
        "id": request_id,
        "model": model,
        "seeds": list(outcome.seeds),
        "timings_ms": asdict(outcome.timings_ms),
        "engines": outcome.engines,
        "fallbacks": [asdict(fallback) for fallback in outcome.fallbacks],
        "loras": list(outcome.loras),
        "warnings": list(dict.fromkeys((*api_request.warnings, *outcome.warnings))),
    }


def event(value: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    kind = value.get("type")
    head = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def progress_event(kind: str, progress: Progress) -> dict[str, Any]:
    """Return an event of a step; OpenAI has none, so that it must be asked for."""
    return {"type": f"{kind}.progress", **asdict(progress)}


def partial_event(kind: str, api_request: ApiRequest, preview: Preview) -> dict[str, Any]:
    """Return the event of a preview; takes some milliseconds."""
    return {
        "type": f"{kind}.partial_image",
        "b64_json": _encoded(preview.image, api_request, None),
        "partial_image_index": preview.number,
        "index": preview.index,
        "step": preview.step,
        "steps": preview.steps,
        **_common(api_request, f"{preview.image.width}x{preview.image.height}"),
    }


def completed_event(
    kind: str, api_request: ApiRequest, finished: Finished, model: str, request_id: str
) -> dict[str, Any]:
    """Return the event of an image that is done; takes some milliseconds."""
    outcome = finished.outcome
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    details = {"input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}
    data = _data(api_request, outcome, 0)
    data.setdefault("b64_json", data.get("url", "").partition(",")[2])  # clients look for it in every event
    return {
        "type": f"{kind}.completed",
        **data,
        "index": finished.index,
        "usage": {**usage, **details},
        **_common(api_request, f"{outcome.width}x{outcome.height}"),
        **_about(api_request, outcome, model, request_id),
    }


def _common(api_request: ApiRequest, size: str) -> dict[str, Any]:
    return {
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": api_request.output_format,
        "quality": "auto",
        "size": size,
    }
