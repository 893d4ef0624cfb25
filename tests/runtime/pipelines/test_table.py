"""Nothing of diffusers' pipelines is missing: each argument and method is obeyed, has no effect, or is refused."""

import inspect
from pathlib import Path

import diffusers
import pytest
from diffusers.pipelines import auto_pipeline
from sdengine.engines.errors import UsageError
from sdengine.runtime import pipelines
from sdengine.runtime.pipelines.attributes import NOTED, OPENING_REFUSED, REFUSED
from sdengine.runtime.pipelines.calls import CALLS

from ...bundles import bundle_of
from .table import arguments, markdown, methods, opening_options

_PAGE = Path(__file__).parents[3] / "docs" / "coming-from-diffusers.md"


@pytest.mark.parametrize("name", CALLS)
def test_arguments_stand_in_diffusers_order(name: str) -> None:
    theirs = [*inspect.signature(getattr(diffusers, name).__call__).parameters][1:]
    assert [a for a in theirs if a != "kwargs"] == [*CALLS[name].arguments]


def test_nothing_is_missing() -> None:
    for found in (arguments(), methods(), opening_options()):
        assert all(found.values())


def test_the_documentation_has_the_table() -> None:
    assert markdown() in _PAGE.read_text(), "run python -m tests.runtime.pipelines.table and put it at the page's end"


@pytest.mark.parametrize("name", CALLS)
def test_the_automatic_pipelines_choose_the_same_classes(name: str) -> None:
    for auto, mapping in (
        (pipelines.AutoPipelineForText2Image, auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING),
        (pipelines.AutoPipelineForImage2Image, auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING),
        (pipelines.AutoPipelineForInpainting, auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING),
    ):
        theirs = auto_pipeline._get_task_class(mapping, name, throw_error_if_not_exist=False)
        if theirs is not None:  # inpainting with a latent consistency model has none
            assert auto._class(name, controlled=CALLS[name].controlled).__name__ == theirs.__name__


@pytest.fixture
def pipe() -> pipelines.StableDiffusionPipeline:
    return pipelines.StableDiffusionPipeline.from_pretrained(bundle_of("sd1"))


def test_what_is_refused_is_refused_by_name(pipe: pipelines.StableDiffusionPipeline) -> None:
    for name in REFUSED:
        with pytest.raises(UsageError, match=name):
            getattr(pipe, name)
        assert not hasattr(pipe, name)
    for name in OPENING_REFUSED:
        with pytest.raises(UsageError, match=name):
            pipelines.StableDiffusionPipeline.from_pretrained(bundle_of("sd1"), **{name: "anything"})


def test_what_has_no_effect_is_accepted_and_said(
    pipe: pipelines.StableDiffusionPipeline, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdengine.runtime.pipelines.say._SAID", set())
    for name, why in NOTED.items():
        assert getattr(pipe, name)() is pipe
        assert f"{name}() changes nothing: {why}" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nam_inference_steps": 3}, "did you mean 'num_inference_steps'"),
        ({"strength": 0.5}, "StableDiffusionImg2ImgPipeline"),
        ({"image": "a.png"}, "StableDiffusionImg2ImgPipeline"),
        ({"cross_attention_kwargs": {"scale": 0.5, "gain": 1}}, "cross_attention_kwargs"),
        ({"output_type": "pli"}, "did you mean 'pil'"),
        ({"ip_adapter_image": "a.png"}, "IP-Adapter"),
    ],
)
def test_bad_arguments_are_named(
    pipe: pipelines.StableDiffusionPipeline, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pipe("a cat", **arguments)


def test_attributes_that_mean_something_can_be_set_and_no_others(pipe: pipelines.StableDiffusionPipeline) -> None:
    pipe.unet = pipe.unet
    pipe.safety_checker = None
    assert (pipe.safety_checker, pipe.feature_extractor) == (None, None)
    for name in ("unet", "vae", "schedular", "_guidance_scale", "safety_checker"):
        with pytest.raises(UsageError, match=name):
            setattr(pipe, name, object())


def test_a_checkpoint_of_another_family_is_refused_with_the_class_that_fits() -> None:
    with pytest.raises(UsageError, match="take StableDiffusionXLImg2ImgPipeline in place of"):
        pipelines.StableDiffusionImg2ImgPipeline.from_pretrained(bundle_of("sdxl"))


def test_from_pipe_shares_the_checkpoint_and_obeys_its_options(pipe: pipelines.StableDiffusionPipeline) -> None:
    for made in (
        pipelines.AutoPipelineForImage2Image.from_pipe(pipe, torch_dtype="float32", scheduler=None),
        pipelines.StableDiffusionImg2ImgPipeline.from_pipe(pipe, torch_dtype="float32"),
        pipelines.StableDiffusionImg2ImgPipeline(**pipe.components),
    ):
        assert type(made) is pipelines.StableDiffusionImg2ImgPipeline
        assert made._opening is pipe._opening
        assert made.scheduler.config == pipe.scheduler.config
    other = pipelines.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert pipelines.AutoPipelineForImage2Image.from_pipe(pipe, scheduler=other).scheduler is other
    for auto in (pipelines.AutoPipelineForInpainting, pipelines.StableDiffusionInpaintPipeline):
        with pytest.raises(UsageError, match="not str"):
            auto.from_pipe("a name")
        with pytest.raises(UsageError, match="no option 'engines'"):
            auto.from_pipe(pipe, engines="onnxruntime")


def test_an_output_is_read_as_diffusers_is() -> None:
    output = pipelines.ImageOutput([1], None, None)  # type: ignore[arg-type]
    theirs = diffusers.ImagePipelineOutput([1])
    for read in (
        len,
        list,
        dict,
        lambda o: o[0],
        lambda o: o["images"],
        lambda o: "images" in o,
        lambda o: o.to_tuple(),
    ):
        assert read(output) == read(theirs)


def test_text_parts_say_what_they_cannot_do(pipe: pipelines.StableDiffusionPipeline) -> None:
    output = pipe.text_encoder(pipe.tokenizer(["a cat"], padding="max_length", return_tensors="np").input_ids)
    assert tuple(output[0].shape[:2]) == (1, 77)
    for call, message in (
        (lambda: output.hidden_states, "clip_skip"),
        (lambda: output.text_embeds, "has no text_embeds; it has last_hidden_state and pooler_output"),
        (lambda: pipe.text_encoder([1, 2]), r"\[B, T\] whole numbers"),
        (lambda: pipe.text_encoder([[1] * 78]), "takes 77"),
        (lambda: pipe.tokenizer(["a cat", "a"], return_tensors="np"), "padding='max_length'"),
        (lambda: pipe.tokenizer(5), "reads text"),
        (lambda: pipe.unet(1), "unet cannot be called"),
        (lambda: pipe.encode_prompt(), "there is no prompt"),
        (lambda: pipe.encode_prompt("a cat", promt="a dog"), "did you mean 'prompt'"),
        (lambda: pipe.encode_prompt("a cat", lora_scale=0.5), "set_adapters"),
    ):
        with pytest.raises(UsageError, match=message):
            call()  # type: ignore[no-untyped-call]
