"""Which sizes a bundle can draw: every listed one, either way round, and whatever lies between their sides."""

import pytest
from sdengine.engines.errors import UsageError
from sdengine.engines.spec import AxisRange
from sdengine.export.sizes import parse_sizes


def test_listed_sizes_can_be_turned_and_mixed() -> None:
    sizes = parse_sizes("1024x1024,832x1216", native=1024, multiple=8)
    assert sizes.listed == ((1024, 1024), (1216, 832), (832, 1216))
    assert sizes.height == sizes.width == AxisRange(832, 1024, 1216)


def test_one_square_size_is_that_size_alone() -> None:
    sizes = parse_sizes("512x512", native=512, multiple=8)
    assert sizes.height == sizes.width == AxisRange(512, 512, 512)


def test_one_size_that_is_not_square_can_be_turned() -> None:
    sizes = parse_sizes("768x512", native=512, multiple=8)
    assert sizes.listed == ((512, 768), (768, 512))
    assert (sizes.height, sizes.width) == (AxisRange(512, 512, 768), AxisRange(512, 768, 768))


@pytest.mark.parametrize("text", ["1024", "1024x", "1024x1024;512x512", "7x8", "1024..512"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sizes(text, native=1024, multiple=8)
