"""Parts of pipelines: what ``pipe.unet`` and its siblings are, and networks that are opened apart from a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines.errors import CheckpointError, UsageError, nearest
from ...engines.files.json_data import json_data
from ..decode.vae_tiling import check_vae_tiling
from .attributes import NOTED_OF_PARTS, REFUSED_OF_PARTS
from .locate import located
from .say import note
from .schedulers import Config

if TYPE_CHECKING:
    from .opening import Opening

__all__ = [
    "AutoencoderKL",
    "ControlNetModel",
    "Network",
    "Part",
    "PartOf",
    "StableDiffusionSafetyChecker",
    "UNet2DConditionModel",
    "unwrapped",
]


_CONFIG_FILES = {"tokenizer": "tokenizer_config.json", "feature_extractor": "preprocessor_config.json"}


class UnknownAttributeError(UsageError, AttributeError):
    """Something that diffusers' objects have, and these do not."""


class Part:
    """A network, or a tokenizer, as diffusers has them as attributes of pipelines; nothing can be computed with it.

    Attributes:
        name: ``unet``, ``vae``, ...

    """

    name: str

    def folder(self) -> Path:
        """Return the folder, or the file, that it is read from."""
        raise NotImplementedError

    @property
    def config(self) -> Config:
        """The contents of its ``config.json``."""
        place = self.folder()
        file = place / _CONFIG_FILES.get(self.name.removesuffix("_2"), "config.json")
        try:
            return Config(json_data(file.read_bytes()))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error

    def __getattr__(self, name: str) -> Any:
        if name in NOTED_OF_PARTS:
            return self._noted(name)
        if name in REFUSED_OF_PARTS:
            raise UnknownAttributeError(f"{self.name}.{name}: {REFUSED_OF_PARTS[name]}")
        raise UnknownAttributeError(f"{self.name} has no {name!r} here{nearest(name, [*NOTED_OF_PARTS, 'config'])}")

    def _noted(self, name: str) -> Callable[..., "Part"]:
        def accepted(*_: object, **__: object) -> "Part":
            note(f"{self.name}.{name}() changes nothing: {NOTED_OF_PARTS[name]}")
            return self

        return accepted

    def __call__(self, *_: object, **__: object) -> None:
        """Refuse: networks run inside the pipeline's engines.

        Raises:
            UsageError: always.

        """
        raise UsageError(f"{self.name} cannot be called: {REFUSED_OF_PARTS['forward']}")


class PartOf(Part):
    """A part of an open pipeline."""

    def __init__(self, opening: "Opening", name: str) -> None:
        self.name = name
        self.opening = opening

    def folder(self) -> Path:
        """See :class:`Part`."""
        return self.opening.part_folder(self.name)

    def enable_tiling(self, use_tiling: bool = True) -> None:
        """Decode and encode pictures in tiles, if they are larger than one."""
        self._check_vae("enable_tiling")
        self.opening.change(vae_tiling="on" if use_tiling else "off")

    def disable_tiling(self) -> None:
        """Decode and encode pictures as a whole."""
        self.enable_tiling(False)

    @property
    def tile_sample_min_size(self) -> int:
        """Pixels along the sides of a tile; set it to cut into others than diffusers' own."""
        self._check_vae("tile_sample_min_size")
        side = self.opening.options.vae_tiling
        return side if isinstance(side, int) else int(self.config.get("sample_size", 32))

    @tile_sample_min_size.setter
    def tile_sample_min_size(self, pixels: int) -> None:
        self._check_vae("tile_sample_min_size")
        self.opening.change(vae_tiling=check_vae_tiling(pixels))

    def _check_vae(self, name: str) -> None:
        if self.name != "vae":
            raise UnknownAttributeError(f"{self.name} has no {name!r}; the VAE has")

    @property
    def dtype(self) -> Any:
        """The type of the pipeline's precision, or its name."""
        return self.opening.dtype

    @property
    def device(self) -> Any:
        """The device of torch, or its name."""
        return self.opening.device_value


class Network(Part):
    """A network that is opened apart from a checkpoint, to take the place of the checkpoint's own."""

    _name: str

    def __init__(self, path: Path) -> None:
        self.name = self._name
        self.path = path

    def folder(self) -> Path:
        """See :class:`Part`."""
        return self.path

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        subfolder: str | None = None,
        torch_dtype: Any = None,
        dtype: Any = None,
        variant: str | None = None,
        use_safetensors: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool | None = None,
        low_cpu_mem_usage: bool | None = None,
    ) -> "Network":
        """Open a network: a folder, or a name on the Hub.

        Args:
            path: of the network, or of a checkpoint that has it in ``subfolder``.
            subfolder: of the checkpoint.
            torch_dtype: has no effect here: a network runs in the precision of its pipeline.
            dtype: the same.
            variant: which weights are fetched.
            use_safetensors: has no effect: they are taken where there are some.
            revision: branch, tag or commit on the Hub.
            token: access token for the Hub.
            local_files_only: use the Hub's local cache only.
            low_cpu_mem_usage: has no effect: nothing is loaded here.

        Raises:
            CheckpointError: there is none.

        """
        folder = located(
            path,
            revision=revision,
            token=token,
            local_files_only=local_files_only,
            variant=variant,
            part=subfolder or cls._name,
            say=note,
        ).path
        inner = folder / subfolder if subfolder and (folder / subfolder).is_dir() else folder
        if not inner.is_file() and not (inner / "config.json").is_file():
            raise CheckpointError(f"{inner} holds no {cls.__name__}: there is no config.json")
        return cls(inner)

    @classmethod
    def from_single_file(cls, link_or_path: str | Path, **options: Any) -> "Network":
        """Open a network of one weights file; options as for :meth:`from_pretrained`.

        Raises:
            CheckpointError: there is none.
            UsageError: an option is unknown.

        """
        own = ("torch_dtype", "revision", "token", "local_files_only", "use_safetensors")
        for name in options:
            if name not in own:
                raise UsageError(f"{cls.__name__}.from_single_file has no option {name!r}{nearest(name, own)}")
        opening = {name: value for name, value in options.items() if name not in ("torch_dtype", "use_safetensors")}
        return cls(located(link_or_path, say=note, **opening).path)


class ControlNetModel(Network):
    """A ControlNet, by diffusers' name."""

    _name = "controlnet"


class AutoencoderKL(Network):
    """A VAE, by diffusers' name."""

    _name = "vae"


class StableDiffusionSafetyChecker(Network):
    """A safety checker, by diffusers' name."""

    _name = "safety_checker"


class UNet2DConditionModel(Network):
    """A UNet, by diffusers' name."""

    _name = "unet"


def unwrapped(value: Any) -> Any:
    """Return what ``torch.compile`` was given."""
    while (inner := getattr(value, "__dict__", {}).get("__wrapped__")) is not None:
        value = inner
    return value
