"""The CPU generator against torch's own."""

import math

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime.latents.noise import Generator, generator_for

SEEDS = [0, 1, 31, 2**32 - 1, 2**32 + 5, 2**63, 2**64 - 1, -1, -(2**63)]
SHAPES = [
    (1, 4, 128, 128),  # multiples of 16
    (2, 4, 8, 8),
    (16,),
    (17,),  # 16 or more, but no multiple: the last block is drawn again
    (31,),
    (5, 7, 11),
    (1, 4, 13, 9),
    (15,),  # fewer than 16: one by one, in double precision
    (1,),
    (3,),
    (2, 2),
    (),
    (0, 4),
    (4, 0),
]


def torch_normals(generator: torch.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return torch.randn(shape, generator=generator, dtype=torch.float32).numpy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_draw(seed: int, shape: tuple[int, ...]) -> None:
    ours = Generator(seed).normal(shape)
    theirs = torch_normals(torch.Generator().manual_seed(seed), shape)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_stream(seed: int) -> None:
    """Draws of all kinds in a row, the second number of a pair carried over the larger draws between."""
    ours, theirs = Generator(seed), torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed % 2**32).permutation(np.repeat(np.arange(len(SHAPES)), 3))
    for i in order:
        np.testing.assert_allclose(ours.normal(SHAPES[i]), torch_normals(theirs, SHAPES[i]), rtol=0, atol=1e-6)


def test_many_numbers() -> None:
    shape = (4, 4, 256, 256)
    ours, theirs = Generator(7).normal(shape), torch_normals(torch.Generator().manual_seed(7), shape)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert abs(float(ours.mean())) < 4 / math.sqrt(ours.size)
    assert abs(float(ours.std()) - 1) < 4 / math.sqrt(ours.size)


def test_generators_are_independent() -> None:
    first, second = Generator(5), Generator(5)
    first.normal((100,))
    np.testing.assert_array_equal(second.normal((100,)), Generator(5).normal((100,)))


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.0, "31", None, True])
@pytest.mark.parametrize("rng", ["cpu", "cuda"])
def test_seed_out_of_range(seed: object, rng: str) -> None:
    with pytest.raises(UsageError, match="seed"):
        generator_for(seed, rng)  # type: ignore[arg-type]


def test_seed_of_numpy() -> None:
    np.testing.assert_array_equal(generator_for(np.int64(31)).normal((8,)), Generator(31).normal((8,)))


def test_unknown_rng() -> None:
    with pytest.raises(UsageError, match="did you mean 'cuda'"):
        generator_for(0, "cudda")
