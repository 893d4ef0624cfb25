"""How much of a plan's weights stays on the device; the rest is streamed from host memory at every run."""

from typing import Any

from ..errors import EngineError, UsageError

__all__ = ["set_streaming_budget"]


def set_streaming_budget(engine: Any, budget: int | float | str, *, component: str) -> int:
    """Set the budget of a plan that was built with ``weight_streaming``.

    Call it after deserialising and before the first execution context: scratch memory depends on it.

    Args:
        engine: the library's ``ICudaEngine``.
        budget: bytes (int); a share of the weights that can be streamed (float, 0 to 1: ``0.0`` streams all of them,
            ``1.0`` none); or ``auto``, the library's own choice from what is free on the device.
        component: for messages.

    Returns:
        The budget in bytes.

    Raises:
        UsageError: the budget is none of these, or the plan was built without weight streaming.
        EngineError: the library refuses it.

    """
    streamable = int(engine.streamable_weights_size)
    if streamable == 0:
        raise UsageError(
            f"{component}: weight_streaming_budget={budget!r}, but the plan streams no weights; "
            "build it with --weight-streaming"
        )
    size = _bytes_of(engine, budget, streamable)
    engine.weight_streaming_budget_v2 = size
    accepted = int(engine.weight_streaming_budget_v2)
    if accepted != size:
        raise EngineError(f"{component}: a budget of {size} bytes was set for its weights, and {accepted} was taken")
    return accepted


def _bytes_of(engine: Any, budget: int | float | str, streamable: int) -> int:
    if budget == "auto":
        return min(int(engine.get_weight_streaming_automatic_budget()), streamable)
    if isinstance(budget, float) and 0.0 <= budget <= 1.0:
        return int(budget * streamable)
    if isinstance(budget, int) and budget >= 0:
        return min(budget, streamable)
    raise UsageError(
        f"weight_streaming_budget={budget!r} is neither bytes (a whole number), nor a share from 0.0 to 1.0, nor 'auto'"
    )
