"""Which numbers of which stream each image gets."""

from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime.latents.seeds import generator_notes, streams_for

SHAPE = (4, 3, 5)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(seed: int, *, rows: int | None = None, skipped: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    shape = SHAPE if rows is None else (rows, *SHAPE)
    for _ in range(skipped):
        torch.randn(shape, generator=generator)
    return torch.randn(shape, generator=generator).numpy()


def test_a_seed_for_each_image() -> None:
    for streams in (streams_for([3, 0], None, 2, "cpu"), streams_for(None, generators(3, 0), 2, "cpu")):
        assert streams.seeds == (3, 0)
        for skipped in range(2):
            found = streams.normal(SHAPE)
            assert np.allclose(found[0], drawn(3, skipped=skipped), atol=1e-6)
            assert np.allclose(found[1], drawn(0, skipped=skipped), atol=1e-6)


def test_one_seed_counts_up_and_none_is_chosen() -> None:
    assert streams_for(2**64 - 1, None, 2, "cpu").seeds == (2**64 - 1, 0)
    chosen = [streams_for(None, None, 2, "cpu").seeds for _ in range(2)]
    assert chosen[0] != chosen[1]
    assert chosen[0][1] == chosen[0][0] + 1


def test_one_generator_is_one_stream() -> None:
    streams = streams_for(None, generators(3)[0], 2, "cpu")
    assert np.allclose(streams.normal(SHAPE), drawn(3, rows=2), atol=1e-6)


@pytest.mark.parametrize(
    ("seed", "generator", "repeated", "rows"),
    [
        ([1, 2, 3], None, True, 3),
        ([1, 2, 3], None, False, 3),
        (None, [1, 2, 3], True, 1),
        (None, [1, 2, 3], False, 3),
        (None, 1, True, 1),
        (None, 1, False, 1),
    ],
)
def test_encoding_one_picture_for_three_images(seed: Any, generator: Any, repeated: bool, rows: int) -> None:
    given = generators(*generator) if isinstance(generator, list) else generator and generators(generator)[0]
    streams = streams_for(seed, given, 3, "cpu")
    assert len(streams.normal_for_images(SHAPE, 1, repeated=repeated)) == rows
    later = streams.normal(SHAPE)
    shared = isinstance(generator, int)
    if not shared:
        assert np.allclose(later[0], drawn(1, skipped=1), atol=1e-6)
        assert np.allclose(later[2], drawn(3, skipped=int(rows == 3)), atol=1e-6)


def test_samples_draw_their_parts_of_a_shared_stream_whenever_they_need_them() -> None:
    streams = streams_for(None, generators(3)[0], 3, "cpu")
    parts = [streams.stream(i) for i in range(3)]
    early = [parts[1].normal(SHAPE), parts[1].normal(SHAPE)]
    late = [[parts[i].normal(SHAPE) for _ in range(2)] for i in (0, 2)]
    whole = [drawn(3, rows=3, skipped=k) for k in range(2)]
    for k in range(2):
        for i, part in enumerate((late[0], early, late[1])):
            assert np.allclose(part[k], whole[k][i], atol=1e-6)


def test_a_sample_with_its_own_seed_has_a_stream_of_its_own() -> None:
    own = streams_for([1, 2], None, 2, "cpu").stream(1)
    assert np.allclose(own.normal(SHAPE), drawn(2), atol=1e-6)
    assert np.allclose(own.normal(SHAPE), drawn(2, skipped=1), atol=1e-6)


def test_bad_streams() -> None:
    for settings, message in (
        ((None, object(), 1, "cpu"), "needs initial_seed"),
        ((None, generators(1, 2), 3, "cpu"), "2 generators for 3 images"),
        (([1, 2], None, 3, "cpu"), "2 seeds for 3 images"),
    ):
        with pytest.raises(UsageError, match=message):
            streams_for(*settings)


def test_what_is_said_of_generators() -> None:
    fresh, used = generators(1, 2)
    torch.randn(5, generator=used)
    assert generator_notes(None, "cpu") == generator_notes(fresh, "cpu") == []
    [note] = generator_notes([fresh, used], "cpu")
    assert "it had been used" in note
    assert generator_notes(fresh, "cuda") == ["rng='cuda' has no effect beside a generator of the device 'cpu'"]


def test_a_used_generator_goes_on_and_moves_on() -> None:
    mine = generators(3)[0]
    torch.randn(SHAPE, generator=mine)
    assert np.allclose(streams_for(None, mine, 1, "cpu").normal(SHAPE)[0], drawn(3, skipped=1), atol=1e-6)
    assert np.allclose(torch.randn(SHAPE, generator=mine).numpy(), drawn(3, skipped=2), atol=1e-6)
    twice = streams_for(None, [mine, mine], 2, "cpu").normal(SHAPE)
    assert [np.allclose(twice[i], drawn(3, skipped=3 + i), atol=1e-6) for i in range(2)] == [True, True]
