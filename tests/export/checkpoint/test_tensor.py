from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from sdengine.engines.errors import CheckpointError
from sdengine.export.checkpoint.safetensors_header import read_header
from sdengine.export.checkpoint.tensor import TensorSource


@pytest.fixture
def stored(tmp_path: Path) -> tuple[dict[str, TensorSource], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "odd": np.arange(3, dtype=np.uint8),  # whatever follows may be unaligned
        "matrix": rng.standard_normal((6, 5)).astype(np.float32),
        "half": rng.standard_normal((4, 3, 1, 1)).astype(np.float16),
        "brain": rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(2.5),
        "none": np.empty((0, 4), np.float32),
        "ids": np.arange(7)[None],
    }
    save_file(arrays, tmp_path / "a.safetensors")
    return read_header(tmp_path / "a.safetensors")[0], arrays


def test_every_tensor_reads_as_it_was_written(
    stored: tuple[dict[str, TensorSource], dict[str, np.ndarray]],
) -> None:
    sources, arrays = stored
    assert set(sources) == set(arrays)
    for name, array in arrays.items():
        read = sources[name].read()
        assert read.dtype == array.dtype
        assert read.shape == array.shape == sources[name].shape
        assert read.flags.aligned
        np.testing.assert_array_equal(read, array)
        assert sources[name].verbatim
        assert not read.flags.writeable or not read.size


def test_a_byte_range_of_the_file_is_the_tensor(
    stored: tuple[dict[str, TensorSource], dict[str, np.ndarray]],
) -> None:
    sources, arrays = stored
    for view, array in (
        (sources["matrix"], arrays["matrix"]),
        (sources["matrix"].rows(2, 4), arrays["matrix"][2:4]),
        (sources["half"].reshaped((4, 3)), arrays["half"][:, :, 0, 0]),
    ):
        assert view.verbatim
        raw = view.file.read_bytes()[view.offset : view.offset + view.nbytes]
        assert raw == array.tobytes()
        np.testing.assert_array_equal(view.read(), array)


def test_a_transposed_tensor_is_not_verbatim(
    stored: tuple[dict[str, TensorSource], dict[str, np.ndarray]],
) -> None:
    sources, arrays = stored
    turned = sources["matrix"].transposed()
    assert not turned.verbatim
    assert turned.shape == (5, 6)
    np.testing.assert_array_equal(turned.read(), arrays["matrix"].T)
    np.testing.assert_array_equal(turned.transposed().read(), arrays["matrix"])
    np.testing.assert_array_equal(turned.reshaped((5, 6, 1, 1)).read(), arrays["matrix"].T[:, :, None, None])
    with pytest.raises(ValueError, match="row by row"):
        turned.reshaped((30,))


def test_views_that_do_not_exist(stored: tuple[dict[str, TensorSource], dict[str, np.ndarray]]) -> None:
    matrix = stored[0]["matrix"]
    with pytest.raises(ValueError, match="no rows 2 to 7 of 'matrix'"):
        matrix.rows(2, 7)
    with pytest.raises(ValueError, match="no rows 4 to 2 of 'matrix'"):
        matrix.rows(4, 2)
    with pytest.raises(ValueError, match="cannot become"):
        matrix.reshaped((7,))
    with pytest.raises(ValueError, match="is no matrix"):
        matrix.reshaped((6, 5, 1)).transposed()
    with pytest.raises(ValueError, match="no rows 0 to 1"):
        matrix.transposed().rows(0, 1)


def test_a_file_that_went_away(stored: tuple[dict[str, TensorSource], dict[str, np.ndarray]]) -> None:
    matrix = stored[0]["matrix"]
    matrix.file.write_bytes(matrix.file.read_bytes()[: matrix.offset + 8])
    with pytest.raises(CheckpointError, match=r"'matrix' of .*a\.safetensors"):
        matrix.read()
    matrix.file.unlink()
    with pytest.raises(CheckpointError, match=r"'matrix' of .*a\.safetensors"):
        matrix.read()
