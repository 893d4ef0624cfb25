"""The real parser and compiler take every graph that export writes, for every family, without a GPU.

Slow: about two minutes on two cores. What another family has in the very same form is left out.
"""

from pathlib import Path

import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.trt import BuildOptions, build_engines

from .bundles import copy_of

pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.slow

SIZES = ((64, 64), (64, 96))

CASES = [
    ("sd1", "fp16", ()),
    ("sdxl", "fp16", ()),
    ("sd1_checked", "fp16", ("safety_checker",)),
    ("sd2", "fp16", ()),
    ("sdxl_refiner", "fp16", ("text_encoder_2", "conditioner", "denoiser")),
    ("sd_inpaint", "fp16", ("denoiser",)),
    ("sdxl_inpaint", "fp16", ("denoiser",)),
    ("lcm", "fp16", ("conditioner", "denoiser")),
    ("sd1", "fp32", ()),
    ("kandinsky", "fp16", ()),
    ("kandinsky_hint", "fp16", ("hint", "denoiser")),
    ("sdxl", "bf16", ("text_encoder_2", "conditioner", "denoiser", "vae_decoder")),
]


@pytest.mark.parametrize(("kind", "precision", "components"), CASES)
def test_every_component_is_compiled(kind: str, precision: str, components: tuple[str, ...], tmp_path: Path) -> None:
    controlnets = 1 if kind in ("sd1", "sdxl") else 0
    path = copy_of(kind, tmp_path, precision=precision, controlnets=controlnets, sizes=SIZES)
    options = BuildOptions(targets=("sm89",), optimization_level=0)
    plans = build_engines(path, "tensorrt-rtx", options=options, components=components)
    bundle = Bundle(path)
    assert [built.file for built in bundle.manifest.built] == [plan.file for plan in plans]
    assert {plan.record.source.component for plan in plans} == set(components or bundle.manifest.components)
    for plan in plans:
        bundle.checked_file(plan.file)
        source = plan.record.source
        spec = bundle.graph(source.component, source.precision).spec
        assert len(plan.record.profiles) == (2 if "h" in spec.axes else 1)
        if source.component != "prior_decoder":  # a scale and a shift, of what is float32
            assert source.precision in plan.record.layers
        if source.component == "denoiser":
            fp32 = plan.record.layers["fp32"]
            assert {"reduce", "select", "unary"} <= set(fp32), "sinusoids, mixing and update are always float32"
            matrices = {p for p, kinds in plan.record.layers.items() if "convolution" in kinds}
            assert matrices == {precision}, "all convolutions of the UNet compute in the precision asked for"
        assert "resize" not in plan.record.layers.get("bf16", {})
        if source.component.startswith("vae") and kind.startswith("sdxl") and precision == "fp16":
            assert set(plan.record.layers) == {"fp32"}
