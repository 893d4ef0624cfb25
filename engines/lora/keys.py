"""The ends of a file's keys: which part of a module's change a tensor is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["REFUSED", "Keys", "sorted_keys"]

_ADAPTER = r"(?:\.[\w-]+)?"  # PEFT writes the adapter's name, "default", unless it saves it apart
_PARTS: tuple[tuple[str, str], ...] = (
    (rf"\.(?:lora_down|lora_A{_ADAPTER})\.weight|(?:\.lora|_lora|\.lora_linear_layer)\.down\.weight", "down"),
    (rf"\.(?:lora_up|lora_B{_ADAPTER})\.weight|(?:\.lora|_lora|\.lora_linear_layer)\.up\.weight", "up"),
    (rf"\.(?:lora_up|lora_B{_ADAPTER})\.bias", "up_bias"),
    (r"\.lora_mid\.weight", "mid"),
    (rf"\.lora_embedding_A{_ADAPTER}", "embedding_down"),
    (rf"\.lora_embedding_B{_ADAPTER}", "embedding_up"),
    (r"(?:\.lora|_lora|\.lora_linear_layer)?\.alpha", "alpha"),
    (r"\.scale", "scale"),
    (r"\.dora_scale", "dora_scale"),
    (rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?", "magnitude"),
    (rf"\.(?P<factor>(?:hada|lokr)_\w+){_ADAPTER}", ""),
    (r"\.(?P<whole>diff|diff_b|w_norm|b_norm|on_input)", ""),
    (rf"\.ia3_l{_ADAPTER}", "ia3_l"),
    (r"\.weight", "weight"),  # (IA)³ of LyCORIS, beside on_input
)
_KEY = re.compile("(?P<module>.+?)(?:" + "|".join(f"(?P<p{i}>{ends})" for i, (ends, _) in enumerate(_PARTS)) + ")")

REFUSED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ends), what)
    for ends, what in (
        (r"\.oft_|\.boft_|\.rescale$", "OFT (orthogonal fine-tuning)"),
        (r"\.[ab][12]\.weight$|\.bm\.weight$|\.bm$", "GLoRA"),
        (r"\.q_layer\.|\.p_layer\.|\.lambda_layer", "T-LoRA"),
        (r"\.vera_lambda_", "VeRA"),
        (r"\.(?:set_weight|reshape_weight)$", "ComfyUI's replacements of whole weights"),
        (r"^lora_controlnet$", "a Control-LoRA, which is a ControlNet in small"),
        (r"(?:^|\.)zero_convs\.|input_hint_block\.|controlnet_cond_embedding\.", "a ControlNet"),
        (r"^(?:lora_)?control_?net[._]", "a LoRA for a ControlNet"),
        (r"\.modules_to_save\.|\.base_layer\.", "modules that PEFT saves whole (modules_to_save)"),
        (r"\.lora_(?:A|B)\.(?:weight\.)?(?:absmax|quant_map|SCB)", "a quantised adapter"),
        (r"(?:^|\.)(?:id_encoder|image_proj|ip_adapter)\.", "an IP-Adapter or PhotoMaker"),
    )
)
"""What is known and cannot be applied, by what its keys look like."""


@dataclass(kw_only=True)
class Keys:
    """A file's keys, sorted.

    Attributes:
        modules: by the file's name for a module: part -> key.
        embeddings: keys of textual inversions, of pivotal tuning: word ("" where the file does not say) -> part -> key.
        repeated: keys of a part that a module has already.
        unknown: the others.

    """

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    embeddings: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


_EMBEDDING = re.compile(r"(?:bundle_emb\.(?P<word>.+)\.)?(?P<part>clip_l|clip_g|text_encoders_[01]|emb_params)")
_WEB_UI = re.compile(r"bundle_emb\.(?P<word>.+)\.string_to_param\.(?:\*|(?P=word))")


def sorted_keys(names: Iterable[str]) -> Keys:
    """Sort a file's keys by the modules that they change."""
    keys = Keys()
    for name in names:
        if embedding := _EMBEDDING.fullmatch(name) or _WEB_UI.fullmatch(name):
            keys.embeddings.setdefault(embedding["word"] or "", {})[embedding.groupdict().get("part") or ""] = name
        elif match := _KEY.fullmatch(name):
            part = match["factor"] or match["whole"] or next(p for i, (_, p) in enumerate(_PARTS) if match[f"p{i}"])
            parts = keys.modules.setdefault(match["module"], {})
            if part in parts:
                keys.repeated.append(name)
            parts.setdefault(part, name)
        else:
            keys.unknown.append(name)
    return keys
