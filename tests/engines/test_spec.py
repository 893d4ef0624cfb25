"""Shapes stated once: resolving, reading and refusing them."""

import pytest
from sdengine.engines.errors import UsageError
from sdengine.engines.spec import AxisRange, ComponentSpec, TensorSpec, split_dim

SPEC = ComponentSpec(
    name="thing",
    inputs=(
        TensorSpec(name="latent", dtype="float32", shape=("S", 4, "h", "w")),
        TensorSpec(name="image", dtype="float32", shape=("S", "8*h", "8*w", 3)),
        TensorSpec(name="map", dtype="float32", shape=("S", "h/4", "w/4")),
    ),
    outputs=(),
    axes={"S": AxisRange(1, 1, 4), "h": AxisRange(2, 8, 16), "w": AxisRange(2, 8, 16)},
)


def shapes(s: int = 2, h: int = 5, w: int = 7) -> dict[str, tuple[int, ...]]:
    return {"latent": (s, 4, h, w), "image": (s, 8 * h, 8 * w, 3), "map": (s, -(-h // 4), -(-w // 4))}


def test_resolve_and_read_are_inverse() -> None:
    axes = {"S": 2, "h": 5, "w": 7}
    assert {t.name: t.resolve(axes) for t in SPEC.inputs} == shapes()
    assert SPEC.axes_of(shapes()) == axes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": (2, 3, 5, 7)}, "dimension of 3 where 4 is needed"),
        ({"latent": (2, 4, 5)}, "needs"),
        ({"image": (2, 41, 56, 3)}, "no multiple of 8"),
        ({"image": (2, 48, 56, 3)}, "axis h as 6, another input as 5"),
        ({"map": (2, 3, 2)}, "map has shape"),
        ({"other": (1,)}, "unknown inputs"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SPEC.axes_of(shapes() | change)


def test_a_length_outside_its_range() -> None:
    with pytest.raises(UsageError, match="axis h is 17, this bundle holds 2 to 16"):
        SPEC.axes_of(shapes(h=17))


def test_a_missing_input() -> None:
    given = shapes()
    del given["map"]
    with pytest.raises(UsageError, match="missing inputs"):
        SPEC.axes_of(given)


def test_dims() -> None:
    assert split_dim("8*h") == (8, "h", 1)
    assert split_dim("w/2") == (1, "w", 2)
    with pytest.raises(ValueError, match="not an axis"):
        split_dim("2-h")


@pytest.mark.parametrize("bounds", [(0, 1, 2), (2, 1, 3), (1, 4, 3)])
def test_a_range_is_ordered(bounds: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="min <= opt <= max"):
        AxisRange(*bounds)
