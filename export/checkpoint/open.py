"""Opening what the user names: a folder, a file, a name on the Hub, or ``demo``."""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from ...engines.errors import CheckpointError, UsageError, nearest
from ...engines.scheduler_fixes import scheduler_notes
from .clip_vocabulary import clip_tokenizers
from .component import Checkpoint, CheckpointComponent
from .convert import controlnet_component, vae_component
from .families import FAMILIES, FamilyDefaults
from .folder import is_checkpoint, is_component, read_component, read_folder
from .hub import Hub, hub_name
from .single_file import CONTROLNET, VAE, below, read_single_file
from .tokenizer_folders import check_vocabulary, pad_token, tokenizer_folders
from .verify import check_components, check_scheduler
from .weight_files import WEIGHT_SUFFIXES, read_weights
from .with_prior import is_decoder, is_prior, prior_of_card, read_decoder

__all__ = ["locate", "open_checkpoint", "open_controlnet"]

_DEMO = Path(__file__).parent.parent / "demo" / "checkpoint"
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Let what cannot be read, wherever that is noticed, be a fault of the checkpoint."""
    try:
        yield
    except OSError as error:
        what = "the checkpoint" if error.filename is None else error.filename
        raise CheckpointError(f"cannot read {what}: {error.strerror or error}") from error


@_reading()
def open_checkpoint(
    source: str | Path,
    *,
    prior: str | Path | None = None,
    vae: str | Path | None = None,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
    prediction_type: str | None = None,
    safety_checker: bool | None = None,
    variant: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
) -> Checkpoint:
    """Open a checkpoint: read its configs and the headers of its weights, and check that all of it fits together.

    Args:
        source: a folder in diffusers' layout, a single ``.safetensors`` or ``.ckpt``, ``OWNER/NAME`` or
            ``OWNER/NAME/FILE`` on the Hub or their address there, or ``demo``.
        prior: for a decoder of Kandinsky 2.2, its prior: a folder or a name on the Hub (its main branch); None takes
            the one that the decoder's model card names.
        vae: another VAE, from a folder, a file or the Hub (its main branch, its plain weights if it has some).
        tokenizer: a folder with a tokenizer, or with ``tokenizer/`` and ``tokenizer_2/``.
        config: for a single file, a folder in diffusers' layout whose configs (scheduler and tokenizers too, where it
            has them) are used instead of those that follow from shapes and family.
        prediction_type: ``epsilon``, ``v_prediction`` or ``sample``, over what the checkpoint says.
        safety_checker: whether the safety checker of Stable Diffusion 1 and 2 is taken; None where a folder has one.
        variant: which weights of a diffusers folder, ``fp16`` for instance; None takes the plain ones.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub.
        offline: do not use the network.

    Raises:
        CheckpointError: it is missing, incomplete, damaged or of an unknown family.
        UsageError: an option does not apply to this source.

    """
    if prediction_type is not None and prediction_type not in _PREDICTIONS:
        known = ", ".join(_PREDICTIONS)
        raise UsageError(f"prediction_type is {known}; not {prediction_type!r}{nearest(prediction_type, _PREDICTIONS)}")
    hub = Hub(revision=revision, token=token, offline=offline, safety_checker=safety_checker is not False)
    path, notes = locate(source, hub, variant)
    if safety_checker and (path.is_file() or is_decoder(path)):
        raise UsageError(f"{source} has no safety checker; folders of Stable Diffusion 1 and 2 may have one")
    replaced = () if vae is None else ("vae",)
    tokenizers = None if tokenizer is None else Path(tokenizer)
    if path.is_dir() and is_decoder(path):
        refused = {"vae": vae, "tokenizer": tokenizer, "config": config}
        for name, value in refused.items():
            if value is not None:
                raise UsageError(f"{name} does not go with a decoder and its prior, which {source} is")
        checkpoint = read_decoder(
            path,
            lambda: _locate_prior(path, prior, replace(hub, revision=None), variant),
            source=_label(source),
            variant=variant,
        )
    elif path.is_dir() and is_prior(path):
        raise CheckpointError(
            f"{source} is a prior: export a decoder with it, sdengine export DECODER --prior {source}"
        )
    elif prior is not None:
        raise UsageError(f"prior goes with the decoder of Kandinsky 2.2; {source} is none")
    elif path.is_dir():
        if config is not None:
            raise UsageError(f"config goes with a single file; {source} is a folder with configs of its own")
        checkpoint = _from_folder(path, _label(source), variant, replaced, tokenizers, safety_checker)
    else:
        if variant is not None:
            raise UsageError(f"variant goes with a folder; {source} is one file")
        configs = None if config is None else Path(config)
        checkpoint = _from_file(path, _label(source), configs, replaced, tokenizers, hub, prediction_type)
    scheduler = (
        checkpoint.scheduler if prediction_type is None else checkpoint.scheduler | {"prediction_type": prediction_type}
    )
    components = dict(checkpoint.components)
    if vae is not None:
        components["vae"], more = _open_vae(vae, FAMILIES[checkpoint.family], replace(hub, revision=None))
        notes += more
    check_components(components)
    check_scheduler(scheduler)
    for name, folder in checkpoint.tokenizers.items():
        check_vocabulary(folder, components[name.replace("tokenizer", "text_encoder")].config.get("vocab_size"))
    changed = scheduler_notes(scheduler, checkpoint.family, str(checkpoint.model_index.get("_class_name")))
    return replace(checkpoint, components=components, scheduler=scheduler, notes=(*notes, *checkpoint.notes, *changed))


@_reading()
def open_controlnet(
    source: str | Path,
    *,
    config: str | Path | None = None,
    variant: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
) -> CheckpointComponent:
    """Open a ControlNet: a folder with ``config.json``, a single file in LDM's or diffusers' layout, or the Hub.

    Whether it fits a UNet is for the caller to check: a ControlNet for SDXL does not say how wide the pooled text is.

    Args:
        source: as for :func:`open_checkpoint`.
        config: for a single file, a folder with the ``config.json`` to use instead of the one that follows from the
            shapes.
        variant: which weights of a folder.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub.
        offline: do not use the network.

    Raises:
        CheckpointError: it is missing, incomplete, damaged or no ControlNet.
        UsageError: an option does not apply to this source.

    """
    path, _ = locate(source, Hub(revision=revision, token=token, offline=offline), variant, part="controlnet")
    if path.is_dir():
        if config is not None:
            raise UsageError(f"config goes with a single file; {source} is a folder with a config of its own")
        component = _component_in(path, "controlnet", variant)[0]
    elif variant is not None:
        raise UsageError(f"variant goes with a folder; {source} is one file")
    else:
        component = _controlnet_from_file(path, None if config is None else Path(config))
    check_components({"controlnet": component})
    return component


def _controlnet_from_file(path: Path, config: Path | None) -> CheckpointComponent:
    stored = read_weights(path)[0]
    inner = below(stored, CONTROLNET) or stored
    if not any(name.startswith(("input_hint_block.", "controlnet_cond_embedding.")) for name in inner):
        raise CheckpointError(
            f"{path} is no ControlNet: it has neither input_hint_block.* nor controlnet_cond_embedding.*"
        )
    try:
        return controlnet_component(inner, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}, taken as a ControlNet: {error}") from error


def locate(source: str | Path, hub: Hub, variant: str | None, part: str | None = None) -> tuple[Path, list[str]]:
    """Return the folder or file that is meant, fetched if need be, and notes.

    Args:
        source: as for :func:`open_checkpoint`.
        hub: where and how to look for what is no path.
        variant: which weights are fetched.
        part: fetch only this component of a repository that is a whole pipeline.

    Raises:
        CheckpointError: it is missing.
        UsageError: a revision is set for a path.

    """
    if source == "demo":
        path = _DEMO
        if not is_checkpoint(path):
            raise CheckpointError(f"this installation lacks the demo checkpoint ({path}); install the package again")
    else:
        path = Path(source).expanduser()
    if path.exists():
        if hub.revision is not None:
            raise UsageError(f"revision goes with a name on the Hub; {source} is a path")
        return path, []
    name = hub_name(source) if isinstance(source, str) else None
    if name is None:
        raise CheckpointError(
            f"there is no {source}; a folder, a {' or '.join(WEIGHT_SUFFIXES[:2])} file, OWNER/NAME on the Hub or the "
            "address of a file there was expected"
        )
    return hub.fetch(name, variant=variant, part=part)


def _locate_prior(decoder: Path, prior: str | Path | None, hub: Hub, variant: str | None) -> Path:
    """Return the folder of a decoder's prior, fetched if need be.

    Raises:
        CheckpointError: there is none.

    """
    named = prior_of_card(decoder) if prior is None else prior
    if named is None:
        raise CheckpointError(
            f"{decoder} is a decoder, which needs a prior for text, and its card names none: name it with "
            "--prior, such as kandinsky-community/kandinsky-2-2-prior or a folder"
        )
    path, _ = locate(named, hub, variant)
    if not path.is_dir():
        raise CheckpointError(f"{named} is no prior: a folder in diffusers' layout, or a name on the Hub, is needed")
    return path


def _label(source: str | Path) -> str:
    """Return what the user named, an address without its query."""
    return str(source).partition("?")[0] if "://" in str(source) else str(source)


def _from_folder(
    path: Path,
    source: str,
    variant: str | None,
    replaced: Collection[str],
    tokenizer: Path | None,
    safety_checker: bool | None,
) -> Checkpoint:
    if is_component(path) and not is_checkpoint(path):
        raise CheckpointError(f"{path} is one component (config.json); the folder with model_index.json is needed")
    if not is_checkpoint(path):
        files = sorted(f.name for f in path.iterdir())
        singles = [f for f in files if f.endswith(WEIGHT_SUFFIXES)]
        hint = f"; name the file: {path / singles[0]}" if singles else ""
        raise CheckpointError(f"{path} has no model_index.json, only {', '.join(files[:6]) or 'nothing'}{hint}")
    checkpoint = read_folder(path, source=source, variant=variant, replaced=replaced, safety_checker=safety_checker)
    if tokenizer is None:
        return checkpoint
    folders = tokenizer_folders(tokenizer, checkpoint.tokenizers)
    return replace(checkpoint, tokenizers=folders)


def _from_file(
    path: Path,
    source: str,
    config: Path | None,
    replaced: Collection[str],
    tokenizer: Path | None,
    hub: Hub,
    prediction_type: str | None,
) -> Checkpoint:
    single = read_single_file(path, config=config, prediction_type=prediction_type, replaced=replaced)
    defaults = FAMILIES[single.family]
    tokenizers, notes = clip_tokenizers(defaults.pad_tokens, tokenizer=tokenizer, config=config, hub=hub)
    return Checkpoint(
        source=source,
        family=single.family,
        components=single.components,
        tokenizers=tokenizers,
        # A folder per tokenizer says what it pads with; a shared one cannot be right for both.
        pad_tokens={n: pad_token(f) if f.name == n else defaults.pad_tokens[n] for n, f in tokenizers.items()},
        scheduler=single.scheduler,
        model_index=dict(defaults.flags),
        notes=(*single.notes, *notes),
    )


def _open_vae(source: str | Path, family: FamilyDefaults, hub: Hub) -> tuple[CheckpointComponent, list[str]]:
    path, notes = locate(source, hub, None, part="vae")
    if path.is_dir():
        component, more = _component_in(path, "vae", None)
        return component, notes + more
    stored = read_weights(path)[0]
    inner = below(stored, VAE) or stored
    weights = {name: t for name, t in inner.items() if not name.startswith(("loss.", "model_ema."))}
    try:
        component = vae_component(weights, family, None)
    except CheckpointError as error:
        raise CheckpointError(f"{path}, taken as a VAE: {error}") from error
    return component, [
        *notes,
        f"the VAE's scaling factor is taken to be {family.scaling_factor}: its file does not tell",
    ]


def _component_in(path: Path, name: str, variant: str | None) -> tuple[CheckpointComponent, list[str]]:
    """Open a component's folder, or the one of that name inside a pipeline."""
    for folder in (path / name, path):
        if is_component(folder):
            return read_component(folder, name, None, variant)
    raise CheckpointError(f"{path} holds no {name}: neither config.json nor {name}/config.json")
