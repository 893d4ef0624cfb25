"""Where a checkpoint is that a caller names: a path, or a name on the Hub."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...engines.bundle.manifest import MANIFEST
from ...engines.errors import CheckpointError, UsageError
from ...engines.files.json_data import json_data
from .child import run_command

__all__ = ["Located", "located"]

_INDEX = "model_index.json"


@dataclass(frozen=True, kw_only=True)
class Located:
    """A checkpoint, or a bundle, on this machine.

    Attributes:
        name: what the caller named.
        path: of its folder or file.

    """

    name: str
    path: Path

    @property
    def is_bundle(self) -> bool:
        """Whether it is a bundle, exported before."""
        return self.path.is_dir() and not (self.path / _INDEX).is_file() and (self.path / MANIFEST).is_file()

    def index(self) -> dict[str, object]:
        """Return the ``model_index.json`` of a checkpoint's folder; empty for a single file.

        Raises:
            CheckpointError: the folder has none, or it cannot be read.

        """
        if self.path.is_file():
            return {}
        file = self.path / _INDEX
        try:
            index = json_data(file.read_bytes())
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{self.path} holds neither a checkpoint ({_INDEX}) nor a bundle ({MANIFEST})"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        if not isinstance(index, dict):
            raise CheckpointError(f"{file} holds no object")
        return index


def located(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool | None = None,
    variant: str | None = None,
    part: str | None = None,
    safety_checker: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Located:
    """Find a checkpoint; what is named on the Hub is fetched by a process of its own.

    Args:
        source: a folder, a file, ``demo``, or a name or address on the Hub.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub; None and True stand for the one that the user is logged in with.
        local_files_only: use the Hub's local cache only.
        variant: which weights are fetched.
        part: fetch this component alone, where the repository is a whole pipeline.
        safety_checker: fetch the pipeline's safety checker, too.
        say: told about progress.

    Raises:
        UsageError: it is no path.
        CheckpointError: there is no such path, and it is no name on the Hub.

    """
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(f"a checkpoint is a path or a name on the Hub, not {type(source).__name__}")
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise UsageError(f"revision goes with a name on the Hub; {source} is a path")
        return Located(name=str(source), path=path.resolve())
    options = {"--revision": revision, "--variant": variant, "--part": part}
    arguments = ["fetch", str(source), *(text for pair in options.items() if pair[1] for text in map(str, pair))]
    if isinstance(token, str):
        arguments += ["--token", token]
    if not safety_checker:
        arguments.append("--no-safety-checker")
    if local_files_only:
        arguments.append("--offline")
    try:
        printed = run_command(arguments, say=say)
    except UsageError:
        raise
    except Exception as error:
        raise CheckpointError(str(error)) from error
    return Located(name=str(source), path=Path(json.loads(printed)["path"]))
