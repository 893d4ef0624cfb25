"""The CUDA generator against published numbers: there need not be a GPU here."""

import numpy as np
import pytest
from sdengine.runtime.latents.noise import PhiloxGenerator, generator_for
from sdengine.runtime.latents.noise.philox import philox4x32


def words(*values: int) -> list[np.ndarray]:
    return [np.array([value], np.uint64) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Random123 1.14, tests/kat_vectors, philox4x32-10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert [int(word[0]) for word in philox4x32(words(*counter), key)] == list(expected)


def test_published_numbers_of_torch() -> None:
    """Seed 0 on a CUDA device, to eight digits, as AUTOMATIC1111's documentation of its imitation prints it."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    np.testing.assert_allclose(generator_for(0, "cuda").normal((3, 4)), expected, rtol=0, atol=1e-6)


def test_published_matrix_of_torch() -> None:
    """``torch.manual_seed(0); torch.randn(8, 8, device="cuda")`` as printed by torch on a GPU, in a Triton lecture."""
    expected = """
        -0.9247 -0.4253 -2.6438  0.1452 -0.1209 -0.5797 -0.6229 -0.3284
        -1.0745 -0.3631 -1.6711  2.2655  0.3117 -0.1842  1.2866  1.1820
        -0.1271  1.2169  1.4353  1.0605 -0.4941 -1.4244 -0.7244 -1.2973
         0.0697 -0.0074  1.8969  0.6878 -0.0779 -0.8373  1.3506 -0.2879
        -0.5965 -0.3283 -0.9086 -0.8059 -0.7407 -0.0504  0.5435  1.5150
         0.0141  0.4532  1.6349  0.7124 -0.1806  1.0252 -1.4622 -0.7554
        -0.1836  0.3824  0.3918 -0.0830  0.8971 -1.1123  0.1116  0.4863
        -0.5499 -0.3231 -0.5469  0.9049  0.2837  0.1210  0.4730 -1.0823
    """
    printed = np.array(expected.split(), np.float64).reshape(8, 8)
    np.testing.assert_allclose(PhiloxGenerator(0).normal((8, 8)), printed, rtol=0, atol=5.1e-5)


def reference(seed: int, count: int, call: int) -> np.ndarray:
    """Number by number, one thread each, in double precision."""
    out = np.empty(count)
    for thread in range(count):
        counter = words(call & 0xFFFFFFFF, call >> 32, thread & 0xFFFFFFFF, thread >> 32)
        w = [int(word[0]) for word in philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))]
        radius = np.sqrt(-2 * np.log((w[0] + 0.5) * 2.0**-32))
        out[thread] = radius * np.sin(2 * np.pi * (w[1] + 0.5) * 2.0**-32)
    return out


@pytest.mark.parametrize("count", [1, 600, 2500])
def test_one_number_per_thread(count: int) -> None:
    seed = 0x1234_5678_9ABC
    generator = PhiloxGenerator(seed)
    np.testing.assert_allclose(generator.normal((count,)), reference(seed, count, 0), atol=2e-6)
    np.testing.assert_allclose(generator.normal((1, 40))[0], reference(seed, 40, 1), atol=2e-6)


def test_an_empty_tensor_does_not_advance() -> None:
    generator = PhiloxGenerator(3)
    assert generator.normal((0, 4)).shape == (0, 4)
    np.testing.assert_array_equal(generator.normal((5,)), PhiloxGenerator(3).normal((5,)))


def test_distribution() -> None:
    x = PhiloxGenerator(2**64 - 1).normal((1, 4, 128, 128))
    assert x.dtype == np.float32 and np.isfinite(x).all()
    assert abs(float(x.mean())) < 0.016 and abs(float(x.std()) - 1) < 0.011
    assert len(np.unique(x)) > 0.99 * x.size
