"""OpenVINO draws diffusers' pictures too: at least 55 dB in float32, 35 dB in bfloat16.

bfloat16 keeps eight bits of each number, which leaves 40 dB and more after a few steps on these networks.
"""

from typing import Any

import pytest
from sdengine.engines.ov.openvino_cpu import preferred

from .oracle import agree, picture

DECIBELS = {"fp32": 55.0, "bf16": 35.0}
IMAGE, MASK, HINT = picture(72, 104, 1), picture(72, 104, 0, hole=True), picture(72, 104, 2)
SIZE = {"height": 72, "width": 104}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("sd1", {**SIZE}),
    ("sd2", {**SIZE}),
    ("sdxl", {**SIZE, "num_images_per_prompt": 2, "seeds": (1, 2)}),
    ("sdxl_refiner", {"image": IMAGE, "strength": 0.6}),
    ("sd_inpaint", {**SIZE, "image": IMAGE, "mask_image": MASK}),
    ("sdxl_inpaint", {**SIZE, "image": IMAGE, "mask_image": MASK}),
    ("sdxl", {**SIZE, "image": IMAGE, "mask_image": MASK, "strength": 0.8}),
    ("lcm", {**SIZE}),
    ("sdxl", {"controlnets": 1, "control_image": HINT, **SIZE}),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "arguments"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_openvino(kind: str, arguments: dict[str, Any], precision: str) -> None:
    if precision == "bf16" and preferred(["fp32"]) != "bf16":
        pytest.skip("OpenVINO does not list bfloat16 among this CPU's capabilities")
    result = agree(
        kind,
        decibels=DECIBELS[precision],
        engine="openvino",
        precision=precision,
        prompt="a small red house by the sea",
        num_inference_steps=4,
        **arguments,
    )
    assert set(result.engines.values()) == {"openvino"}
