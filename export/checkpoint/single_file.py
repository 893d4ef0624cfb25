"""Reading a checkpoint in one file, with the key layout of LDM (SD 1, SD 2) or SGM (SDXL)."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engines.errors import CheckpointError
from .component import CheckpointComponent
from .convert import controlnet_component, text_component, unet_component, vae_component
from .families import COSXL, DDIM, FAMILIES, SD2_BASE, FamilyDefaults
from .json_file import read_json
from .prediction_marks import Marks, read_marks
from .tensor import TensorSource
from .weight_files import read_weights
from .weight_names import is_buffer

__all__ = ["CONTROLNET", "VAE", "SingleFile", "below", "read_single_file"]

_UNET = "model.diffusion_model."
VAE = "first_stage_model."
CONTROLNET = "control_model."
_SD2_BASE_STEP = 875000
_INPAINTING_CHANNELS = 9
_VAE_TRAINING = ("loss.", "model_ema.")
# Training state and tables that the samplers compute themselves.
_TRAINING = (
    "model_ema.", "alphas_cumprod", "betas", "log_one_minus",
    "posterior_", "sqrt_", "logvar", "lvlb_weights", "denoiser.", "global_step", "cond_stage_model.logit_scale",
    "scale_factor",
)  # fmt: skip
_MARKERS = ("v_pred", "ztsnr", "edm_vpred.")  # read by .prediction
_LORA = (
    "it looks like a LoRA, which is not exported by itself: "
    "export the checkpoint that it is for, with --lora and this file"
)
_CONTROLNET = "it looks like a ControlNet: give it with --controlnet, beside the checkpoint that it is for"
_INVERSION = "it looks like a textual inversion: give it to `sdengine run` with --textual-inversion"
# Names of tensors that identify a kind of file; the first one counts.
_HINTS = {
    "double_blocks.": "it looks like Flux",
    "joint_blocks.": "it looks like Stable Diffusion 3",
    "motion_modules.": "it looks like a motion module (AnimateDiff), which is not supported",
    "ip_adapter.": "it looks like an IP-Adapter, which is not supported",
    "image_proj": "it looks like an IP-Adapter, which is not supported",
    **dict.fromkeys(("lora_", ".lora.", "hada_w1", "lokr_w", "oft_blocks", ".diff_b"), _LORA),
    **dict.fromkeys(("control_model.", "input_hint_block.", "controlnet_cond_embedding."), _CONTROLNET),
    **dict.fromkeys(("emb_params", "string_to_param", "clip_l", "text_encoders_0"), _INVERSION),
    "down_blocks.": "it looks like one component of diffusers' layout: give the folder with model_index.json",
    "encoder.": "it looks like a VAE: give it with --vae",
}


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """The contents of one file: everything of a checkpoint except the tokenizers."""

    family: str
    components: dict[str, CheckpointComponent]
    scheduler: dict[str, object]
    notes: tuple[str, ...]


def read_single_file(
    file: Path, *, config: Path | None, prediction_type: str | None, replaced: Collection[str] = ()
) -> SingleFile:
    """Open a single-file checkpoint; the family is recognised by the keys.

    Args:
        file: a ``.safetensors``, or a ``.ckpt`` of plain tensors.
        config: a folder in diffusers' layout whose configs are used instead of those inferred from the shapes.
        prediction_type: ``epsilon`` or ``v_prediction``; None takes what the file or the family says.
        replaced: components that will come from elsewhere and need not be here.

    Raises:
        CheckpointError: unknown family, missing parts, weights that belong nowhere.

    """
    stored, facts = read_weights(file)
    family = _family(file, stored)
    try:
        marks = read_marks(stored, facts, prediction_type)
        defaults, notes = _defaults(family, stored, facts, marks.prediction)
        components = _components(stored, defaults, config, replaced)
    except CheckpointError as error:
        raise CheckpointError(f"{file}, recognised as {family}: {error}") from error
    if config is not None and (config / "scheduler").is_dir():
        scheduler = read_json(config / "scheduler" / "scheduler_config.json")
        notes = _against(scheduler, marks, prediction_type)
    else:
        scheduler = _marked(defaults.scheduler, marks)
        notes = [*notes, *marks.notes]
    return SingleFile(
        family=family, components=components, scheduler=scheduler, notes=(*notes, *_left_out(stored, family))
    )


def _family(file: Path, stored: Mapping[str, TensorSource]) -> str:
    if any(name.startswith(_UNET) for name in stored):
        # The refiner's only encoder has the place of SDXL's first one: families with more encoders come first.
        for family in ("sdxl", "sdxl-refiner", "sd2", "sd1"):
            if all(any(name.startswith(encoder.prefix) for name in stored) for encoder in FAMILIES[family].encoders):
                return family
    seen = Counter(".".join(name.split(".")[:2]) for name in stored)
    some = ", ".join(f"{prefix} ({count})" for prefix, count in seen.most_common(6)) or "nothing"
    hint = next((f"; {hint}" for part, hint in _HINTS.items() if any(part in name for name in stored)), "")
    parts = "a UNet (model.diffusion_model.*) with the text encoders of SD 1, SD 2, SDXL or its refiner"
    raise CheckpointError(f"{file} is of no known family: {parts} was expected, seen were {some}{hint}")


def _components(
    stored: Mapping[str, TensorSource],
    defaults: FamilyDefaults,
    config: Path | None,
    replaced: Collection[str],
) -> dict[str, CheckpointComponent]:
    components = [text_component(below(stored, encoder.prefix), encoder, config) for encoder in defaults.encoders]
    components.append(unet_component(below(stored, _UNET), defaults, config))
    if "vae" not in replaced:
        vae = {name: tensor for name, tensor in below(stored, VAE).items() if not name.startswith(_VAE_TRAINING)}
        if not vae:
            raise CheckpointError(f"the VAE ({VAE}*) is missing; give one with --vae")
        components.append(vae_component(vae, defaults, config))
    if control := below(stored, CONTROLNET):
        components.append(controlnet_component(control, config))
    return {component.name: component for component in components}


def below(stored: Mapping[str, TensorSource], prefix: str) -> dict[str, TensorSource]:
    """Return the tensors whose names start with ``prefix``, under what follows it."""
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}


def _defaults(
    family: str, stored: Mapping[str, TensorSource], facts: Mapping[str, object], prediction: str | None
) -> tuple[FamilyDefaults, list[str]]:
    """Return the family's defaults, and what was assumed.

    SD 2 exists at 768 pixels, predicting v, and at 512, predicting noise, under the same keys. Where neither the user
    nor a mark says which, a file that was saved at step 875000 is the latter, as in diffusers, and so is its
    inpainting model; any other is taken for the former.
    """
    if family != "sd2":
        return FAMILIES[family], []
    if prediction is not None:
        return (FAMILIES[family] if prediction == "v_prediction" else SD2_BASE), []
    step = facts.get("global_step")
    if "global_step" in stored:
        step = next(iter(stored["global_step"].read().flat), None)
    first = stored.get(f"{_UNET}input_blocks.0.0.weight")
    if first is not None and first.shape[1:2] == (_INPAINTING_CHANNELS,):
        return SD2_BASE, []
    if step == _SD2_BASE_STEP:
        return SD2_BASE, [f"step {step}: taken for the 512-pixel SD 2, which predicts noise (epsilon)"]
    note = "nothing in the file tells which SD 2 it is: taken for the 768-pixel one, which predicts v (v_prediction); "
    return FAMILIES[family], [note + "the 512-pixel one needs prediction_type=epsilon"]


def _marked(scheduler: dict[str, object], marks: Marks) -> dict[str, object]:
    """Change a family's scheduler config as the file's marks say."""
    prediction = {} if marks.prediction is None else {"prediction_type": marks.prediction}
    if marks.sigmas is not None:
        low, high = marks.sigmas
        return COSXL | {"sigma_min": low, "sigma_max": high} | prediction
    if marks.zero_snr:
        rescaled: dict[str, object] = {"rescale_betas_zero_snr": True}
        # PNDM knows no such schedule.
        return (DDIM if scheduler["_class_name"] == "PNDMScheduler" else scheduler) | prediction | rescaled
    return scheduler | prediction


def _against(scheduler: Mapping[str, object], marks: Marks, requested: str | None) -> list[str]:
    """Return a note where the user's config and the file's marks differ; the config decides."""
    used = scheduler.get("prediction_type", "epsilon")
    edm = marks.sigmas is not None and not str(scheduler.get("_class_name")).startswith("EDM")
    differs = (requested is None and marks.prediction not in (None, used)) or edm
    if not differs and not (marks.zero_snr and not scheduler.get("rescale_betas_zero_snr")):
        return []
    return [f"the given scheduler config ({used}) is used, though of the file: {'; '.join(marks.notes)}"]


def _left_out(stored: Collection[str], family: str) -> list[str]:
    """Return notes on the parts of the file that are not used."""
    used = (_UNET, VAE, CONTROLNET, *(encoder.prefix for encoder in FAMILIES[family].encoders), *_TRAINING, *_MARKERS)
    notes = []
    if any(name.startswith("model_ema.") for name in stored):
        notes.append("the file has averaged weights too (model_ema.*); the plain ones are taken")
    rest = sorted(name for name in stored if not name.startswith(used) and not is_buffer(name))
    if rest:
        notes.append(f"{len(rest)} tensors belong to no part and are left out: {', '.join(rest[:3])}")
    return notes
