"""Finding tokenizers, and the token that each pads with."""

from collections.abc import Iterable
from pathlib import Path

from ...engines.errors import CheckpointError
from ...engines.files.file_kind import what_it_is
from .families import CLIP_END
from .json_file import read_json

__all__ = ["check_vocabulary", "is_tokenizer", "pad_token", "tokenizer_folders"]


def is_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a tokenizer: ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``."""
    return (folder / "tokenizer.json").is_file() or all((folder / n).is_file() for n in ("vocab.json", "merges.txt"))


def tokenizer_folders(path: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return a folder for each of ``names`` below ``path``, or ``path`` itself where it is a tokenizer.

    Raises:
        CheckpointError: there is none for one of the names.

    """
    folders = {}
    for name in names:
        folder = next((f for f in (path / name, path, path / "tokenizer") if is_tokenizer(f)), None)
        if folder is None:
            raise CheckpointError(
                f"{path} holds no {name}: neither tokenizer.json nor vocab.json with merges.txt, there or in {name}/"
            )
        folders[name] = folder
    return folders


def pad_token(folder: Path) -> str:
    """Return the token that the tokenizer pads with, CLIP's end token where nothing is said.

    As transformers reads it: ``special_tokens_map.json`` decides over ``tokenizer_config.json``, unless the latter is
    of the newer kind that lists all tokens. (In SD 2.1's published files the two differ.)
    """
    config, special = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    settings = config if "added_tokens_decoder" in config else config | special
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else CLIP_END


def check_vocabulary(folder: Path, size: object) -> None:
    """Make sure that every id of the tokenizer has an embedding.

    Args:
        folder: the tokenizer.
        size: rows of the text encoder's token embedding.

    Raises:
        CheckpointError: the tokenizer has more tokens than the encoder, so it belongs to another one.

    """
    merges = folder / "merges.txt"
    try:
        merges.read_text(encoding="utf-8") if merges.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{merges} is no text in UTF-8 ({error}): {what_it_is(merges)}") from error
    vocabulary: object = read_json(folder / "vocab.json") if (folder / "vocab.json").is_file() else None
    if vocabulary is None:
        model = read_json(folder / "tokenizer.json").get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = vocabulary.values() if isinstance(vocabulary, dict) else ()
    highest = max((i for i in ids if isinstance(i, int)), default=-1)
    if highest < 0:
        raise CheckpointError(f"the tokenizer in {folder} has no vocabulary")
    if isinstance(size, int) and highest >= size:
        raise CheckpointError(
            f"the tokenizer in {folder} has ids up to {highest}, the text encoder embeds {size}: "
            "they do not belong together"
        )
