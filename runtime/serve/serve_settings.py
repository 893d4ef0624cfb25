"""Everything about a server that is decided before it starts: plain values, which other processes can be given."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines.errors import UsageError
from ...engines.scalars import finite_number
from .limits import Limits

if TYPE_CHECKING:
    from ..pipeline import Pipeline

__all__ = ["ServeSettings", "open_pipelines", "parse_size"]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """A server's settings.

    Attributes:
        bundles: folders.
        served_model_name: what requests call them: one for each bundle, or several for one. Empty: the folders' names.
        opening: arguments of :meth:`~sdengine.runtime.pipeline.Pipeline.load`.
        policy: see :class:`~.worker.Worker`, as for the next two.
        max_num_seqs: images that share a launch at most.
        max_num_queued_reqs: requests that may wait.
        limits: of one request.
        api_keys: one of which requests to ``/v1`` must carry.
        allowed_origins: of pages elsewhere that may use the server.
        warm_up: sizes (width, height) to be generated before the server is ready; None is each bundle's default.
        sse_keep_alive_interval: seconds between heartbeats of a stream.
        shutdown_timeout: seconds in which accepted requests may end when the server is to end.

    Raises:
        UsageError: a value cannot be met.

    """

    bundles: tuple[str, ...]
    served_model_name: tuple[str, ...] = ()
    opening: dict[str, Any] = field(default_factory=dict)
    policy: str = "step"
    max_num_seqs: int | None = None
    max_num_queued_reqs: int = 256
    limits: Limits = field(default_factory=Limits)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_origins: tuple[str, ...] = ()
    warm_up: tuple[tuple[int, int], ...] | None = None
    sse_keep_alive_interval: float = 10.0
    shutdown_timeout: float = 25.0

    def __post_init__(self) -> None:
        if not all(key.strip() and key.isascii() for key in self.api_keys):
            raise UsageError("--api-key: a key is empty, or not of ASCII: leave the option out to let everybody in")
        for origin in self.allowed_origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise UsageError(f"--allowed-origins: {origin!r} is no origin, like https://example.com, nor *")
        finite_number("--request-timeout", self.limits.timeout)
        finite_number("--body-timeout", self.limits.body_timeout)
        finite_number("--shutdown-timeout", self.shutdown_timeout)
        finite_number("--sse-keep-alive-interval", self.sse_keep_alive_interval)

    @cached_property
    def folders(self) -> dict[str, str]:
        """The paths of the folders that the server reads, its bundles' and its LoRAs', and the name of each."""
        listed = (*self.bundles, self.opening.get("lora_folder"))
        folders = [Path(path).expanduser() for path in listed if path is not None]
        paths = {path for folder in folders for path in (folder.absolute(), folder.resolve())} - {Path("/")}
        return {str(path): path.name for path in paths}

    @property
    def names(self) -> dict[str, str]:
        """The first name of each bundle -> its folder.

        Raises:
            UsageError: there are more bundles than names, two of one name, or one without.

        """
        listed = self.served_model_name
        if len(self.bundles) > 1 and listed and len(listed) != len(self.bundles):
            raise UsageError(f"{len(listed)} served model names for {len(self.bundles)} bundles: give one for each")
        names = listed[: len(self.bundles)] or tuple(Path(bundle).resolve().name for bundle in self.bundles)
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two bundles are called {name}: name each with --served-model-name")
        if not all(name.strip() for name in (*names, *listed)):
            raise UsageError("--served-model-name is empty")
        return dict(zip(names, self.bundles, strict=True))

    @property
    def aliases(self) -> dict[str, str]:
        """Every name that requests may use -> the first name of its bundle."""
        names = list(self.names)
        return {**{name: names[0] for name in self.served_model_name if len(names) == 1}, **{n: n for n in names}}


def open_pipelines(settings: ServeSettings) -> "dict[str, Pipeline]":
    """Open the bundles, by their names.

    Raises:
        UsageError: a setting cannot be met.
        BundleError: a bundle is missing or damaged.
        EngineError: no engine can run it.

    """
    from ..pipeline import Pipeline

    opened: dict[str, Pipeline] = {}
    try:
        for name, bundle in settings.names.items():
            opened[name] = Pipeline.load(bundle, **settings.opening)
    except BaseException:
        for pipeline in opened.values():
            pipeline.close()
        raise
    return opened


def parse_size(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``.

    Raises:
        UsageError: it is not that.

    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise UsageError(f"the size {text!r} is not WIDTHxHEIGHT, like 1024x768")
    return int(match[1]), int(match[2])
