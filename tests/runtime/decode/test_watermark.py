"""The SDXL watermark: the package's own numbers, without the package's import of torch."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime.decode import watermark
from sdengine.runtime.decode.watermark import add_watermark, watermark_available

INSTALLED = watermark_available()
needs_package = pytest.mark.skipif(not INSTALLED, reason="invisible-watermark is not installed")


def pictures(height: int, width: int) -> np.ndarray:
    """Smooth pictures with some noise, as drawn ones are."""
    y, x = np.mgrid[0:height, 0:width] / 64.0
    waves = np.stack([np.sin(x + c) * np.cos(y * (c + 1)) for c in range(3)], axis=-1)
    noise = np.random.default_rng(0).standard_normal((2, height, width, 3))
    return np.clip(0.5 + 0.3 * waves + 0.03 * noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(512, 248), (248, 256), (64, 64)])
def test_small_pictures_stay(height: int, width: int) -> None:
    pixels = pictures(height, width)
    assert add_watermark(pixels) is pixels


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watermark, "watermark_available", lambda: False)
    watermark._max_dct.cache_clear()
    with pytest.raises(UsageError, match="invisible-watermark"):
        add_watermark(pictures(256, 256))


def test_only_the_needed_file_is_loaded(tmp_path: Path) -> None:
    """With a stand-in for the package that fails when it is imported as a whole."""
    package = tmp_path / "imwatermark"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('imports torch')\n")
    (package / "maxDct.py").write_text(
        "class EmbedMaxDct:\n"
        "    def __init__(self, bits, wmLen):\n"
        "        assert wmLen == 48 and bits[:8] == [1, 0, 1, 1, 0, 0, 1, 1]\n"
        "    def encode(self, bgr):\n"
        "        return bgr + [1, 2, 300]\n"
    )
    for name in ("cv2", "pywt"):
        (tmp_path / f"{name}.py").touch()
    program = (
        "import sys, numpy as np\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from sdengine.runtime.decode.watermark import add_watermark\n"
        "out = add_watermark(np.zeros((2, 256, 256, 3), np.float32))\n"
        "assert np.allclose(out, [1.0, 2 / 255, 1 / 255]), out[0, 0, 0]\n"
        "assert not {'torch', 'imwatermark'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@needs_package
def test_as_diffusers() -> None:
    torch = pytest.importorskip("torch")
    from diffusers.pipelines.stable_diffusion_xl.watermark import StableDiffusionXLWatermarker

    pixels = pictures(256, 320)
    theirs = StableDiffusionXLWatermarker().apply_watermark(torch.from_numpy(pixels.transpose(0, 3, 1, 2) * 2 - 1))
    expected = (theirs / 2 + 0.5).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(add_watermark(pixels), expected, atol=1e-5)


@needs_package
def test_reads_back() -> None:
    """The method is not exact on 8-bit pixels; of 48 bits, 24 would agree by chance."""

    def agreeing(pixels: np.ndarray) -> int:
        decoder = importlib.import_module("imwatermark").WatermarkDecoder("bits", 48)
        bgr = np.ascontiguousarray(np.round(pixels[0, ..., ::-1] * 255).astype(np.uint8))
        return sum(int(bit) == want for bit, want in zip(decoder.decode(bgr, "dwtDct"), watermark._BITS, strict=True))

    plain = pictures(512, 512)
    assert agreeing(add_watermark(plain)) >= 42 > 36 >= agreeing(plain)
