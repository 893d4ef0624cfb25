"""Fetching a checkpoint from the Hugging Face Hub, and nothing of the repository that is not used."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NoReturn
from urllib.parse import unquote

from ...engines.errors import CheckpointError, UsageError
from .weight_files import WEIGHT_SUFFIXES, pick_weights, variants_of_parts

__all__ = ["Hub", "HubName", "hub_name"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:/[\w.+ -]+)*")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# Pages and downloads; the revision of a pull request is refs/pr/1.
_PAGE = re.compile(
    r"(?P<name>[^/]+/[^/]+)/(?:blob|resolve|raw|tree)/(?P<revision>refs/\w+/[^/]+|[^/]+)(?:/(?P<inside>.+))?"
)
_NETWORKS = re.compile(r"unet|vae|text_encoder(_2)?|controlnet(_\d+)?|movq|safety_checker")
_NETWORKS_OF_PRIOR = re.compile(r"prior|text_encoder|image_encoder")
_CONFIGS = ("tokenizer", "tokenizer_2", "scheduler", "image_processor", "feature_extractor")
# The variant stands before the numbers, or behind them as diffusers before 0.28 wrote it.
_SHARD = re.compile(r"\w+(?:\.(?P<variant>\w+))?-\d{5}-of-\d{5}(?:\.(?P<old>\w+))?\.(?P<kind>safetensors|bin)")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """``owner/name``, and what is meant inside it: a folder, a weights file, or everything (an empty string).

    Attributes:
        repo: ``owner/name``.
        inside: the path in the repository.
        revision: the branch, tag or commit that an address names, or None.

    """

    repo: str
    inside: str
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether one weights file is meant."""
        return self.inside.endswith(WEIGHT_SUFFIXES)


def hub_name(source: str) -> HubName | None:
    """Read a name on the Hub, or the address of a page or a file there; None if it is neither.

    Names are ``owner/name``, ``owner/name/file.safetensors`` and ``owner/name/folder``; addresses have them behind
    ``https://huggingface.co/`` or ``hf.co/``, as their pages (``/blob/``, ``/tree/``) and downloads (``/resolve/``) do.

    Raises:
        CheckpointError: it is an address, but not of a model on the Hub.

    """
    scheme, match, rest = source.partition("://")
    host, _, path = (rest if match else source).partition("/")
    if not match and host.lower() not in _HOSTS:
        return _name(source.rstrip("/"))
    web = not match or scheme.lower() in ("http", "https")
    if not web or host.lower() not in (*_HOSTS, _endpoint_host()):
        raise CheckpointError(
            f"{source} is an address outside the Hugging Face Hub: download the file and give its path"
        )
    path = unquote(path.partition("?")[0].partition("#")[0]).strip("/")
    if path.startswith(("datasets/", "spaces/")):
        raise CheckpointError(f"{source} is the address of a {path.partition('/')[0].rstrip('s')}, not of a model")
    page = _PAGE.fullmatch(path)
    name = _name(page["name"] + (f"/{page['inside']}" if page["inside"] else "")) if page else _name(path)
    if name is None:
        raise CheckpointError(
            f"{source} is no address of a model: https://huggingface.co/OWNER/NAME was expected, or "
            "https://huggingface.co/OWNER/NAME/resolve/main/FILE"
        )
    return replace(name, revision=page["revision"]) if page else name


def _name(text: str) -> HubName | None:
    if not _ID.fullmatch(text) or ".." in text.split("/"):
        return None
    owner, name, *rest = text.split("/")
    return HubName(repo=f"{owner}/{name}", inside="/".join(rest))


def _endpoint_host() -> str:
    """Return the host that the Hub's library asks (``HF_ENDPOINT``)."""
    from huggingface_hub import constants

    return constants.ENDPOINT.partition("://")[2].partition("/")[0].lower()


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where and how to look.

    Attributes:
        revision: branch, tag or commit; None is the main branch.
        token: access token; None takes the one the user is logged in with.
        offline: use the local cache only.
        safety_checker: whether the safety checker of a pipeline is fetched.

    """

    revision: str | None = None
    token: str | None = None
    offline: bool = False
    safety_checker: bool = True

    def fetch(self, name: HubName, *, variant: str | None, part: str | None = None) -> tuple[Path, list[str]]:
        """Bring what is needed into the local cache and return its path there, and notes.

        Args:
            name: what to fetch.
            variant: which weights; see :func:`~.weights.pick_weights`.
            part: fetch only this component where the repository is a whole pipeline.

        Raises:
            CheckpointError: there is no such repository, revision or file, it is gated, or the network and the cache
                both lack it.
            UsageError: an address names another revision than the option.

        """
        if name.revision is not None and self.revision not in (None, name.revision):
            raise UsageError(f"the address names the revision {name.revision}, --revision {self.revision}: give one")
        if name.revision is not None and self.revision is None:
            return replace(self, revision=name.revision).fetch(name, variant=variant, part=part)
        if self.offline:
            return self._cached(name, part, None), []
        try:
            return self._download(name, variant, part), []
        except CheckpointError:
            raise
        except Exception as error:
            # Which exceptions a failed connection gives depends on the HTTP library below huggingface_hub.
            self._refuse_if_final(name, error)
            return self._cached(name, part, error), [
                f"the Hub could not be reached; {name.repo} is from the local cache"
            ]

    def _download(self, name: HubName, variant: str | None, part: str | None) -> Path:
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download

        info = HfApi().model_info(name.repo, revision=self.revision, token=self.token)
        files = [sibling.rfilename for sibling in info.siblings or []]
        if name.is_file:
            if name.inside not in files:
                raise CheckpointError(f"{name.repo} has no file {name.inside}{_singles(files)}")
            return Path(hf_hub_download(name.repo, name.inside, revision=self.revision, token=self.token))
        if not self.safety_checker:
            files = [file for file in files if "safety_checker" not in PurePosixPath(file).parts]
        root, patterns = _files_to_fetch(name, files, variant, part)
        folder = snapshot_download(name.repo, revision=self.revision, token=self.token, allow_patterns=patterns)
        return Path(folder) / root

    def _cached(self, name: HubName, part: str | None, cause: Exception | None) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        base = PurePosixPath(name.inside)
        marks = [base / "model_index.json", base / "config.json"]
        if part is not None:
            marks.insert(0, base / part / "config.json")
        for mark in [base] if name.is_file else marks:
            try:
                path = hf_hub_download(name.repo, str(mark), revision=self.revision, local_files_only=True)
            except (LocalEntryNotFoundError, HFValidationError):
                continue
            return Path(path) if name.is_file else Path(path).parent
        why = "the Hub could not be reached" if cause else "only the local cache was allowed"
        where = f" at revision {self.revision}" if self.revision else ""
        raise CheckpointError(
            f"{name.repo}{where} is neither a local path nor in the local cache, and {why}; "
            "fetch it with a connection first, or give the path of a folder"
        ) from cause

    def _refuse_if_final(self, name: HubName, error: Exception) -> None:
        """Raise if the Hub was reached and refused: then the cache is not searched."""
        from huggingface_hub import errors

        def no(why: str) -> NoReturn:
            raise CheckpointError(f"{name.repo}: {why}") from error

        if isinstance(error, errors.GatedRepoError):
            no("its licence must be accepted on its page first, and a token that may read it is needed")
        if isinstance(error, errors.RevisionNotFoundError):
            no(f"it has no revision {self.revision!r}")
        if isinstance(error, errors.RepositoryNotFoundError):
            no("there is neither such a path here nor such a repository on the Hub (a private one needs a token)")
        if isinstance(error, errors.HFValidationError):
            no(f"there is no such path, and it is no name of a repository ({error})")


def _files_to_fetch(
    name: HubName, files: Collection[str], variant: str | None, part: str | None
) -> tuple[str, list[str]]:
    """Return the folder inside the repository to fetch from, and patterns of its files."""
    base = f"{name.inside}/" if name.inside else ""
    if part is not None and f"{base}{part}/config.json" in files:
        base = f"{base}{part}/"
    elif f"{base}model_index.json" in files:
        configs = [f for f in files if any(_lies_in(f, f"{base}{folder}/") for folder in _CONFIGS)]
        small = [f for f in configs if f.endswith((".json", ".txt"))]
        folders = [f.removeprefix(base).removesuffix("/config.json") for f in files if f.startswith(base)]
        known = _NETWORKS_OF_PRIOR if "prior" in folders else _NETWORKS
        parts = [folder for folder in folders if known.fullmatch(folder) and f"{base}{folder}/config.json" in files]
        if "movq" in folders and f"{base}README.md" in files:
            small.append(f"{base}README.md")  # it names the prior
        inside = {folder: _inside(files, f"{base}{folder}/") for folder in parts}
        variants = variants_of_parts(inside, variant, f"{name.repo}/{base}".rstrip("/"))
        networks = [
            file
            for folder in parts
            for file in _component_files(name.repo, f"{base}{folder}/", files, variants[folder])
        ]
        return base, [f"{base}model_index.json", *small, *networks]
    if f"{base}config.json" not in files:
        where = f"{name.repo}/{base}".rstrip("/")
        raise CheckpointError(f"{where} has neither model_index.json nor config.json{_singles(files)}")
    return base, _component_files(name.repo, base, files, variant)


def _component_files(repo: str, base: str, files: Collection[str], variant: str | None) -> list[str]:
    names = _inside(files, base)
    picked = pick_weights(names, variant, f"{repo}/{base}".rstrip("/"))
    chosen = ["config.json", picked.name]
    if picked.index:
        end = "bin" if picked.pickled else "safetensors"
        shards = [(n, _SHARD.fullmatch(n)) for n in names]
        chosen += [n for n, m in shards if m and m["kind"] == end and (m["variant"] or m["old"]) == picked.variant]
    return [base + n for n in chosen]


def _inside(files: Collection[str], base: str) -> list[str]:
    return [f.removeprefix(base) for f in files if _lies_in(f, base)]


def _lies_in(file: str, folder: str) -> bool:
    return file.startswith(folder) and "/" not in file.removeprefix(folder)


def _singles(files: Collection[str]) -> str:
    singles = [file for file in files if file.endswith(WEIGHT_SUFFIXES)]
    return f"; it has {', '.join(singles[:5])} (name one as OWNER/NAME/FILE)" if singles else ""
