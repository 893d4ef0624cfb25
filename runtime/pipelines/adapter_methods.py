"""diffusers' methods for LoRAs and textual inversions; part of every pipeline by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...engines.errors import UsageError, nearest
from .adapters import Adapters, adapter_file
from .attributes import OPENING_NOTED
from .from_pretrained import LOCATING
from .opening import Opening

__all__ = ["AdapterMethods"]

_LORAS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
_EMBEDDINGS = ("learned_embeds.safetensors", "learned_embeds.bin")


class AdapterMethods:
    """What changes the adapters of a pipeline's checkpoint."""

    _opening: Opening

    def load_textual_inversion(self, pretrained_model_name_or_path: Any, token: Any = None, **options: Any) -> None:
        """Add embeddings of new words.

        Args:
            pretrained_model_name_or_path: a file or a folder; or a list of them.
            token: the word, or one for each file; without, the file's own.
            options: ``weight_name`` and ``subfolder`` name a file in the folder.

        Raises:
            UsageError: they do not fit the text encoders, or an option cannot be obeyed.

        """
        paths = pretrained_model_name_or_path
        several = isinstance(paths, (list, tuple))
        listed = list(paths) if several else [paths]
        words = list(token) if several and isinstance(token, (list, tuple)) else [token] * len(listed)
        inside = _inside("load_textual_inversion", options)
        sources = []
        for path, word in zip(listed, words, strict=True):
            file = adapter_file(path, **inside, names=_EMBEDDINGS)
            sources.append(file if word is None else (file, word))
        self._opening.change(textual_inversions=(*self._opening.options.textual_inversions, *sources))

    def unload_textual_inversion(self, tokens: Any = None, tokenizer: Any = None, text_encoder: Any = None) -> None:
        """Remove all embeddings that were added.

        Raises:
            UsageError: only some are to be removed.

        """
        if tokens is not None:
            raise UsageError("unload_textual_inversion removes all of them: load those that are to stay again")
        self._opening.change(textual_inversions=())

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Any,
        adapter_name: str | None = None,
        hotswap: bool = False,
        **options: Any,
    ) -> None:
        """Load a LoRA.

        As in diffusers, it alone is active then in the components that it changes, until :meth:`set_adapters` says
        otherwise. The file is read again when LoRAs change: it has to stay where it is.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder, or a name on the Hub.
            adapter_name: what to call it.
            hotswap: put it in the place of the one that is called so.
            options: ``weight_name`` and ``subfolder`` name a file in the folder.

        Raises:
            UsageError: it is no LoRA, or an option cannot be obeyed; or it does not fit the checkpoint, which is known
                once that is open.
            CheckpointError: it is damaged.

        """
        inside = _inside("load_lora_weights", options)
        file = adapter_file(pretrained_model_name_or_path_or_dict, **inside, names=_LORAS)
        self._adapt(self._adapters.load(file, adapter_name, hotswap=hotswap))

    @property
    def _adapters(self) -> Adapters:
        return self._opening.options.adapters

    def _adapt(self, adapters: Adapters) -> None:
        self._opening.change(adapters=adapters)

    def unload_lora_weights(self, reset_to_overwritten_params: bool = False) -> None:
        """Take all LoRAs away but those that are fused."""
        self._adapt(self._adapters.unload())

    def set_adapters(self, adapter_names: Any, adapter_weights: Any = None) -> None:
        """Say which LoRAs are active, and how strong each is: a number, or numbers by component and block.

        Raises:
            UsageError: there is no such LoRA, or a weight means nothing.

        """
        self._adapt(self._adapters.set(adapter_names, adapter_weights))

    def delete_adapters(self, adapter_names: Any) -> None:
        """Take LoRAs away.

        Raises:
            UsageError: there is no such LoRA.

        """
        self._adapt(self._adapters.delete(adapter_names))

    def disable_lora(self) -> None:
        """Use none of the loaded LoRAs until :meth:`enable_lora`, not even where they are fused."""
        self._adapt(replace(self._adapters, enabled=False))

    def enable_lora(self) -> None:
        """Use the active LoRAs again."""
        self._adapt(replace(self._adapters, enabled=True))

    def fuse_lora(
        self,
        components: Any = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        """Let the active LoRAs stay when the others are unloaded.

        Args:
            components: in which networks; without, in all.
            lora_scale: what their weights are multiplied with.
            safe_fusing: has no effect: weights that are not finite are always refused.
            adapter_names: which, if not those that are active.
            options: those of older releases have no effect.

        Raises:
            UsageError: there is no such LoRA or component.

        """
        self._adapt(self._adapters.fuse(lora_scale, adapter_names, components))

    def unfuse_lora(self, components: Any = None, **options: Any) -> None:
        """Take back what :meth:`fuse_lora` did, in some components or in all."""
        self._adapt(self._adapters.unfuse(components))

    def get_active_adapters(self) -> list[str]:
        """Return the names of the active LoRAs."""
        return self._adapters.active_names

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Return the names of the LoRAs that are loaded, by component."""
        return self._adapters.by_component

    @property
    def num_fused_loras(self) -> int:
        """How many LoRAs are fused."""
        return len(self.fused_loras)

    @property
    def fused_loras(self) -> set[str]:
        """Names of the LoRAs that are fused."""
        return {one.name for one in self._adapters.fused}


def _inside(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return which file in a folder is meant.

    Raises:
        UsageError: there are options that cannot be obeyed.

    """
    known = ("weight_name", "subfolder")
    for name, value in options.items():
        if name not in (*known, *OPENING_NOTED, *LOCATING) and value is not None:
            raise UsageError(f"{method} has no option {name!r}{nearest(name, known)}; write weights to a file first")
    return {name: options.get(name) for name in known}
