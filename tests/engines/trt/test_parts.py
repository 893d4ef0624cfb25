"""Profiles, messages and failures, without the library."""

import contextlib
import os
import signal
from collections.abc import Callable

import msgspec
import pytest
from sdengine.engines.spec import AxisRange, ComponentSpec, TensorSpec
from sdengine.engines.trt.build_options import BuildOptions
from sdengine.engines.trt.failure import build_error, parse_error
from sdengine.engines.trt.interrupts import interrupts_stop
from sdengine.engines.trt.messages import Messages
from sdengine.engines.trt.profiles import profiles_for, shapes_of

SPEC = ComponentSpec(
    name="denoiser",
    inputs=(
        TensorSpec("state", "float32", ("S", 5, 4, "h", "w")),
        TensorSpec("row_sample", "int64", ("R",)),
        TensorSpec("residual", "float32", ("R", 16, "h/2", "w/2")),
        TensorSpec("layer", "int64", (1,)),
    ),
    outputs=(TensorSpec("next_state", "float32", ("S", 5, 4, "h", "w")),),
    axes={"S": AxisRange(1, 1, 4), "R": AxisRange(1, 2, 8), "h": AxisRange(4, 8, 17), "w": AxisRange(4, 8, 16)},
)


def test_ctrl_c_stops_a_build_though_the_library_ignores_what_its_callbacks_raise() -> None:
    def library(callback: Callable[[], object]) -> None:
        with contextlib.suppress(BaseException):
            callback()

    messages, before = Messages(), signal.getsignal(signal.SIGINT)
    with interrupts_stop(messages):
        library(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert isinstance(messages.stopped_by, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_without_sizes_there_is_one_profile_over_everything() -> None:
    [profile] = profiles_for(SPEC, [], factor=8)
    assert profile == SPEC.axes


def test_each_size_has_a_profile_of_its_own_and_rows_stay_free() -> None:
    first, second = profiles_for(SPEC, [(64, 64), (136, 72)], factor=8)
    assert (first["h"], first["w"]) == (AxisRange(8, 8, 8), AxisRange(8, 8, 8))
    assert (second["h"], second["w"]) == (AxisRange(17, 17, 17), AxisRange(9, 9, 9))
    assert second["S"] == AxisRange(1, 1, 4) and second["R"] == AxisRange(1, 2, 8)


def test_a_component_without_a_size_has_one_profile() -> None:
    spec = ComponentSpec("c", (TensorSpec("x", "float32", ("R", 3)),), (), {"R": AxisRange(1, 2, 8)})
    assert len(profiles_for(spec, [(64, 64), (128, 128)], factor=8)) == 1


def test_a_vae_for_tiles_has_one_profile_for_all_sizes_beyond_them() -> None:
    tile = SPEC.axes | {axis: AxisRange(1, 8, 8) for axis in ("h", "w")}
    spec = msgspec.structs.replace(SPEC, axes=tile)
    assert profiles_for(spec, [(128, 128), (256, 64)], factor=8) == (tile,)


def test_shapes_are_the_ends_of_the_axes_and_fixed_inputs_have_none() -> None:
    shapes = shapes_of(SPEC, profiles_for(SPEC, [(136, 72)], factor=8)[0])
    assert shapes == {
        "state": ((1, 5, 4, 17, 9), (1, 5, 4, 17, 9), (4, 5, 4, 17, 9)),
        "row_sample": ((1,), (2,), (8,)),
        "residual": ((1, 16, 9, 5), (2, 16, 9, 5), (8, 16, 9, 5)),
    }


def test_messages_are_sorted() -> None:
    messages = Messages()
    for severity, text in [
        ("WARNING", "ModelImporter.cpp:1071: Make sure input row_sample has Int64 binding."),
        ("WARNING", "something odd"),
        ("WARNING", "something odd "),
        ("ERROR", "bad"),
        ("INFO", "Total Activation Memory: 300 bytes"),
        ("INFO", "Total Activation Memory: 200 bytes"),
        ("INFO", "Total Weights Memory: 50 bytes"),
    ]:
        messages.take(severity, text)
    assert (messages.warnings, messages.errors) == (["something odd"], ["bad"])
    assert (messages.activation, messages.weights) == (300, 50)


def test_a_parser_that_says_nothing_is_quoted_from_its_log() -> None:
    assert "no such file" in str(parse_error("vae_decoder", "tensorrt", [], ["no such file"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OutOfMemory (Requested size was 8589934592 bytes.)", r"8192 MiB were requested\) for shapes up to state"),
        ("Skipping tactic 5 due to insufficient memory on requested size of 2147483648", r"2048 MiB were requested\)"),
        ("std::bad_alloc", "Memory ran out for shapes up to state"),
        ("CUDA initialization failure with error: 35", "sdengine doctor"),
        ("Could not find any implementation for node Attention_7.", "at Attention_7: .*precision"),
    ],
)
def test_a_failure_says_what_to_try(text: str, expected: str) -> None:
    error = build_error(
        "denoiser",
        "tensorrt",
        [text],
        layers=["Attention_7", "Attention_71"],
        largest="state [5]",
        options=BuildOptions(),
    )
    with pytest.raises(type(error), match=rf"denoiser: tensorrt cannot compile it.*{expected}"):
        raise error
    assert "Attention_71" not in str(error)
