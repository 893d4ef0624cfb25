"""A caller's ``torch.Generator``: drawn from and moved on as torch draws and moves on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime.latents.noise import GeneratorStream, PhiloxGenerator, stream_of

SHAPES = [(4, 8, 8), (3,), (1, 4, 5, 5), (1,), (624,), (2, 2), (17,), (16,), (4, 9, 13)]
USES: dict[str, Callable[[torch.Generator], Any]] = {
    "not at all": lambda g: None,
    "one normal": lambda g: torch.randn(1, generator=g),
    "an odd few": lambda g: torch.randn(7, generator=g),
    "many normals": lambda g: torch.randn(1000, generator=g),
    "float64": lambda g: torch.randn(5, generator=g, dtype=torch.float64),
    "integers": lambda g: torch.randint(10, (3,), generator=g),
    "a whole block": lambda g: torch.rand(624, generator=g),
    "all but one of a block": lambda g: torch.rand(623, generator=g),
    "uniforms": lambda g: torch.rand(625, generator=g),
    "a permutation": lambda g: torch.randperm(50, generator=g),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("seed", [0, 31, 2**63 + 5])
def test_goes_on_where_it_stands_and_moves_the_generator_on(use: str, seed: int) -> None:
    mine, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
    USES[use](mine)
    USES[use](theirs)
    stream = stream_of(mine, "cpu")
    assert isinstance(stream, GeneratorStream)
    assert stream.seed == seed
    assert stream.used == (use != "not at all")
    for shape in SHAPES * 3:
        np.testing.assert_allclose(stream.normal(shape), torch.randn(shape, generator=theirs).numpy(), atol=1e-6)
        # what comes next, of whatever kind, is the same too
        ours_next, theirs_next = (torch.Generator().set_state(g.get_state()) for g in (mine, theirs))
        for draw in USES.values():
            expected = draw(theirs_next)
            assert expected is None or torch.allclose(draw(ours_next).double(), expected.double(), atol=1e-6)
    assert stream.used


def test_one_generator_twice_is_one_stream() -> None:
    mine, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    first, second = stream_of(mine, "cpu"), stream_of(mine, "cpu")
    for stream in (first, second, first):
        np.testing.assert_allclose(stream.normal((5, 7)), torch.randn(5, 7, generator=theirs).numpy(), atol=1e-6)


class Cuda:
    """The methods and the 16 bytes of ``torch.Generator("cuda")``, which exists only where CUDA is."""

    def __init__(self, seed: int, device: Any = "cuda", words: int = 0) -> None:
        self.device = device
        self.state = torch.from_numpy(np.array([seed, words], np.uint64).view(np.uint8).copy())

    def initial_seed(self) -> int:
        return int(self.state.numpy().view(np.uint64)[0])

    def get_state(self) -> torch.Tensor:
        return self.state.clone()

    def set_state(self, state: torch.Tensor) -> None:
        self.state = state.clone()


@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda"), torch.device("cuda", 0)])
def test_a_generator_of_cuda_gives_cudas_numbers(device: Any) -> None:
    generator = Cuda(0, device)
    stream = stream_of(generator, "cpu")
    first = stream.normal((1, 4, 8, 8))
    # torch.randn(4, device="cuda", generator=torch.Generator("cuda").manual_seed(0)), as published
    np.testing.assert_allclose(first.reshape(-1)[:4], [-0.9247, -0.4253, -2.6438, 0.1452], atol=5e-5)
    assert generator.state.numpy().view(np.uint64).tolist() == [0, 4]
    expected = PhiloxGenerator(0)
    expected.normal((256,))
    second = stream.normal((2, 4, 8, 8))
    assert np.array_equal(second, expected.normal((2, 4, 8, 8)))
    assert np.array_equal(stream_of(Cuda(0, device, words=4), "cpu").normal((2, 4, 8, 8)), second)


def test_generators_that_are_not_known() -> None:
    class Seeded:
        def initial_seed(self) -> int:
            return 5

    expected = torch.randn(20, generator=torch.Generator().manual_seed(5)).numpy()
    assert np.allclose(stream_of(Seeded(), "cpu").normal((20,)), expected, atol=1e-6)
    assert np.array_equal(stream_of(Seeded(), "cuda").normal((20,)), PhiloxGenerator(5).normal((20,)))
    with pytest.raises(UsageError, match="of the device 'mps' are not known"):
        stream_of(Cuda(0, "mps"), "cpu")
    with pytest.raises(UsageError, match="state of 16 bytes is not known"):
        stream_of(Cuda(0, "cpu"), "cpu")
