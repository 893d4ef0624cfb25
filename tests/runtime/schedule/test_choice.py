"""What callers of diffusers pass as scheduler and scheduler_config: names, classes, objects, whole configs, files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime.schedule import make_schedule
from sdengine.runtime.schedule.choice import choose_scheduler, described_config

from ..parity.oracle import agree, oracle, ours, psnr, their_warnings
from .oracle import SDXL

CHECKPOINT: dict[str, Any] = {**SDXL, "_class_name": "EulerDiscreteScheduler"}
BETAS = {name: SDXL[name] for name in ("beta_start", "beta_end", "beta_schedule")}
CLASSES = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]


def timesteps(scheduler: Any, scheduler_config: Any = None) -> tuple[list[float], tuple[str, ...]]:
    choice = choose_scheduler(scheduler, scheduler_config, CHECKPOINT)
    schedule = make_schedule(choice.config, num_inference_steps=8, solver=choice.solver, overrides=choice.overrides)
    assert schedule.solver == choice.solver
    return schedule.timesteps.tolist(), choice.warnings


def theirs(scheduler: Any) -> list[float]:
    with their_warnings():
        scheduler.set_timesteps(8)
    return [float(t) for t in scheduler.timesteps]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_objects_and_configs(name: str) -> None:
    cls = getattr(diffusers, name)
    with their_warnings():
        from_config = cls.from_config(CHECKPOINT)
        bare = cls(**BETAS)
    assert timesteps(cls)[0] == timesteps(name)[0] == pytest.approx(theirs(from_config), abs=1e-3)
    for scheduler in (from_config, bare):
        expected = pytest.approx(theirs(scheduler), abs=1e-3)
        assert timesteps(scheduler)[0] == expected
        assert timesteps(cls, scheduler.config)[0] == expected
        assert timesteps(name, dict(scheduler.config))[0] == expected
    for whole in ((None, from_config.config), (from_config.config, None)):
        assert timesteps(*whole)[0] == pytest.approx(theirs(from_config), abs=1e-3)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("source", ["DDIMScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler"])
def test_a_config_of_another_scheduler(name: str, source: str) -> None:
    with their_warnings():
        config = getattr(diffusers, source).from_config(CHECKPOINT, timestep_spacing="trailing").config
        expected = getattr(diffusers, name).from_config(config)
    if config.get("clip_sample"):
        config = dict(config) | {"clip_sample": False}
    found, warnings = timesteps(getattr(diffusers, name), config)
    assert found == pytest.approx(theirs(expected), abs=1e-3)
    with their_warnings():
        foreign = {key for key in config if not key.startswith("_")} - set(getattr(diffusers, name)().config)
    named = {key for key in foreign if any(key in warning for warning in warnings)}
    assert named == foreign


def test_class_name_decides_unless_a_scheduler_is_named(tmp_path: Path) -> None:
    config = {**SDXL, "_class_name": "HeunDiscreteScheduler", "_diffusers_version": "0.30.0"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    for given in (config, tmp_path / "scheduler_config.json", str(tmp_path)):
        assert choose_scheduler(None, given, CHECKPOINT).solver == "HeunDiscreteScheduler"
        assert choose_scheduler("euler_a", given, CHECKPOINT).solver == "euler_a"
    without = {"_use_default_values": [], "beta_start": 0.001}
    choice = choose_scheduler(None, without, CHECKPOINT)
    assert (choice.solver, choice.config) == ("EulerDiscreteScheduler", without)


def test_what_is_said_of_a_whole_config() -> None:
    config = {
        **CHECKPOINT,
        "prediction_type": "v_prediction",
        "use_karas_sigmas": True,
        "eta_noise": 1,
        "clip_sample": 0,
    }
    _, [foreign, prediction] = timesteps(None, config)
    assert "use_karas_sigmas; did you mean 'use_karras_sigmas'?" in foreign
    assert "eta_noise" in foreign and "clip_sample" in foreign
    assert "prediction_type is v_prediction, the checkpoint's is epsilon" in prediction
    live = diffusers.EulerDiscreteScheduler.from_config({**BETAS, "_class_name": "EulerDiscreteScheduler"}).config
    found, [unused] = timesteps(None, {**live, "timestep_spacing": "trailing"})
    assert "timestep_spacing='trailing' has no effect, as in diffusers" in unused
    assert found == pytest.approx(
        theirs(diffusers.EulerDiscreteScheduler.from_config({**live, "timestep_spacing": "trailing"}))
    )


@pytest.mark.parametrize(
    ("scheduler", "config", "message"),
    [
        (None, {"use_karas_sigmas": True}, "has no option 'use_karas_sigmas'; did you mean 'use_karras_sigmas'"),
        ("euler", {"clip_sample": True}, "has no option 'clip_sample'"),
        (7, None, "a scheduler class or object of diffusers, not int"),
        (None, 7, "a mapping of options or the path"),
        (None, "/nowhere/scheduler_config.json", "there is no file"),
        (diffusers.FlowMatchEulerDiscreteScheduler, None, "unknown solver 'FlowMatchEulerDiscreteScheduler'"),
    ],
)
def test_bad_schedulers(scheduler: Any, config: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        timesteps(scheduler, config)


def test_by_hand_on_top_of_an_object() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
    found, _ = timesteps(scheduler, {"timestep_spacing": "trailing"})
    assert found == timesteps("EulerDiscreteScheduler", {"timestep_spacing": "trailing"})[0] != timesteps(scheduler)[0]
    with pytest.raises(UsageError, match="did you mean 'timestep_spacing'"):
        timesteps(scheduler, {"timestep_spacin": "trailing"})
    with pytest.raises(UsageError, match="did you mean"):
        timesteps(scheduler, {"use_karas_sigmas": True})
    assert described_config(scheduler, {"timestep_spacing": "trailing"})["timestep_spacing"] == "trailing"


def test_numbers_of_numpy_as_options() -> None:
    plain = timesteps(None, {"steps_offset": 1, "num_train_timesteps": 1000})[0]
    assert timesteps(None, {"steps_offset": np.int64(1), "num_train_timesteps": 1000.0})[0] == plain


def test_images_with_an_object_are_those_of_diffusers() -> None:
    reference = oracle("sdxl", "text")
    settings: dict[str, Any] = {"num_inference_steps": 4, "height": 64, "width": 72, "output_type": "np"}
    with their_warnings():
        reference.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
            reference.scheduler.config, use_karras_sigmas=True
        )
        expected = reference("a cat", **settings, generator=torch.Generator().manual_seed(3)).images
    result = ours("sdxl")("a cat", **settings, seed=3, scheduler=reference.scheduler)
    assert psnr(expected, result.images) > 80
    assert result.settings["scheduler"] == "DPMSolverMultistepScheduler"
    assert result.settings["scheduler_config"]["use_karras_sigmas"] is True


def test_one_step_with_leading_timesteps() -> None:
    settings: dict[str, Any] = {"prompt": "a cat", "height": 64, "width": 72, "num_inference_steps": 1}
    leading = agree("sdxl", **settings, scheduler_config={"timestep_spacing": "leading"}, decibels=60)
    assert [w for w in leading.warnings if "the first timestep is 1 of 1000" in w and "'trailing' is meant" in w]
    for harmless in ({"num_inference_steps": 2}, {"scheduler_config": {"timestep_spacing": "trailing"}}):
        assert not ours("sdxl")(**settings | harmless, output_type="latent").warnings


def test_nothing_of_diffusers_is_imported() -> None:
    code = (
        "import sys; from sdengine.runtime.schedule.choice import choose_scheduler as c; c('euler', {}, {}); "
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
