"""Which kernels an image's time goes to."""

from typing import Any

from .contenders import Contender
from .record import Record

__all__ = ["profile_image"]

_MOST = 25


def profile_image(record: Record, contender: Contender, kind: str) -> None:
    """Draw an image under torch's profiler, and write the kernels that take longest."""
    import torch

    contender.draw("a red fox", 0, 1)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        drawn = contender.draw("a blue fox", 0, 1)
    events: list[Any] = [event for event in profiler.key_averages() if event.device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events)
    for event in events[:_MOST]:
        record.figure(
            f"{kind}: kernels of an image, without capture",
            kernel=event.key[:110],
            calls=event.count,
            ms=round(event.self_device_time_total / 1e3, 2),
            share=round(event.self_device_time_total / total, 4),
        )
    record.figure(f"{kind}: all kernels of an image", ms=round(total / 1e3, 2), wall_ms=round(drawn.seconds * 1e3, 2))
    contender.close()
