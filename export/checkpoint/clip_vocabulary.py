"""CLIP's vocabulary for single-file checkpoints, which do not carry one."""

from collections.abc import Iterable
from pathlib import Path

from ...engines.errors import CheckpointError
from .hub import Hub
from .tokenizer_folders import is_tokenizer, tokenizer_folders

__all__ = ["clip_tokenizers"]

_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_SOURCE = "openai/clip-vit-large-patch14"
# All of these hold the one vocabulary of CLIP, which Stable Diffusion 1, 2 and XL share.
_PLACES = (
    (_SOURCE, ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer/"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer/"),
    ("stabilityai/stable-diffusion-xl-refiner-1.0", "tokenizer_2/"),
    ("stabilityai/stable-diffusion-2-1", "tokenizer/"),
    ("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", ""),
)


def clip_tokenizers(
    names: Iterable[str], *, tokenizer: Path | None, config: Path | None, hub: Hub
) -> tuple[dict[str, Path], list[str]]:
    """Find a tokenizer for each of ``names``, and say where it is from.

    Looked for in this order: ``tokenizer``; ``config``; the local Hugging Face cache; the Hub (about 1.5 MB).

    Raises:
        CheckpointError: it is in none of these places.

    """
    names = list(names)
    for path in (tokenizer, config):
        if path is not None and (path is tokenizer or any((path / name).is_dir() for name in names)):
            return tokenizer_folders(path, names), []
    folder = _from_cache()
    if folder is None and not hub.offline:
        folder = _from_hub(hub)
    if folder is None:
        tried = "the local Hugging Face cache" + ("" if hub.offline else f" and the Hub ({_SOURCE})")
        raise CheckpointError(
            f"a single file carries no tokenizer, and {tried} had none; give a folder with vocab.json and merges.txt "
            "(--tokenizer PATH), such as the tokenizer/ of any Stable Diffusion checkpoint in diffusers' layout"
        )
    return dict.fromkeys(names, folder), [f"a single file carries no tokenizer: CLIP's was taken from {folder}"]


def _from_cache() -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for repo, inside in _PLACES:
        file = try_to_load_from_cache(repo, f"{inside}vocab.json")
        if isinstance(file, str) and is_tokenizer(Path(file).parent):
            return Path(file).parent
    return None


def _from_hub(hub: Hub) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(_SOURCE, allow_patterns=list(_FILES), token=hub.token))
    except Exception:  # no connection, by whichever HTTP library; the caller says what was tried
        return None
    return folder if is_tokenizer(folder) else None
