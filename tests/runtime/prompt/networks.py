"""Tiny random text encoders, as transformers' modules and as the prompt code sees them."""

import copy
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray
from sdengine.runtime.prompt import TextEncoder, Tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.clip_tokenizer import BOS, EOS, save_tokenizer, vocabulary

__all__ = ["refiner_pipeline", "sd_pipeline", "sdxl_pipeline", "text_encoder", "text_encoders", "tokenizer"]

torch.set_num_threads(1)


def _module(kind: type[Any], width: int, layers: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=width + 4,
        bos_token_id=vocabulary()[BOS],
        eos_token_id=vocabulary()[EOS],
        initializer_factor=5.0,
    )
    module = kind(config).eval()
    if not hasattr(module, "text_model"):
        # diffusers 0.42 looks for the final norm there when clip_skip is given; transformers 5 has it one level up
        object.__setattr__(module, "text_model", module)
    return module


@functools.cache
def _folder(pad: str) -> Path:
    folder = Path(tempfile.mkdtemp())
    save_tokenizer(folder, pad_token=pad)
    return folder


def tokenizer(pad: str = EOS) -> Tokenizer:
    return Tokenizer.from_folder(_folder(pad))


def sd_pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=_module(CLIPTextModel, 24, 3, 0),
        tokenizer=CLIPTokenizer.from_pretrained(_folder(EOS)),
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(*, force_zeros: bool = True) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=_module(CLIPTextModel, 24, 3, 0),
        text_encoder_2=_module(CLIPTextModelWithProjection, 32, 4, 1),
        tokenizer=CLIPTokenizer.from_pretrained(_folder(EOS)),
        tokenizer_2=CLIPTokenizer.from_pretrained(_folder("!")),
        unet=None,
        scheduler=None,
        force_zeros_for_empty_prompt=force_zeros,
    )


def refiner_pipeline() -> StableDiffusionXLImg2ImgPipeline:
    return StableDiffusionXLImg2ImgPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=_module(CLIPTextModelWithProjection, 32, 4, 1),
        tokenizer=None,
        tokenizer_2=CLIPTokenizer.from_pretrained(_folder("!")),
        unet=None,
        scheduler=None,
        force_zeros_for_empty_prompt=False,
    )


class _Network:
    """Runs a module as a compiled text encoder would, and counts its calls and windows."""

    def __init__(self, module: Any, *, final_norm: bool) -> None:
        self.module = module
        self.final_norm = final_norm
        self.windows: list[int] = []

    def __call__(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        layer: NDArray[np.int64],
        extra_embeddings: NDArray[np.float32],
        /,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert input_ids.dtype == attention_mask.dtype == layer.dtype == np.int64
        assert input_ids.shape == attention_mask.shape and input_ids.shape[1] == 77 and layer.shape == (1,)
        assert extra_embeddings.dtype == np.float32 and len(extra_embeddings) >= 1
        self.windows.append(len(input_ids))
        module = copy.deepcopy(self.module)
        table = module.get_input_embeddings().weight.detach()
        table = torch.cat([table, torch.from_numpy(extra_embeddings)])
        embedding = torch.nn.Embedding(*table.shape)
        embedding.weight = torch.nn.Parameter(table)
        module.set_input_embeddings(embedding)
        with torch.no_grad():
            out = module(torch.from_numpy(input_ids), torch.from_numpy(attention_mask), output_hidden_states=True)
            hidden = out.hidden_states[int(layer[0])]
            if self.final_norm:
                hidden = module.text_model.final_layer_norm(hidden)
        pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
        return hidden.numpy(), pooled.numpy()


def text_encoder(module: Any, name: str, pad: str, *, final_norm: bool, max_batch: int | None = None) -> TextEncoder:
    config = module.config
    return TextEncoder(
        name=name,
        tokenizer=tokenizer(pad),
        run=_Network(module, final_norm=final_norm),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocab_size=module.get_input_embeddings().num_embeddings,
        pooled_width=config.projection_dim if isinstance(module, CLIPTextModelWithProjection) else config.hidden_size,
        max_batch=max_batch,
    )


def text_encoders(pipeline: Any, *, max_batch: int | None = None) -> list[TextEncoder]:
    """Wrap the text encoders of a pipeline."""
    final_norm = isinstance(pipeline, StableDiffusionPipeline)
    found = []
    if pipeline.text_encoder is not None:
        found.append(
            text_encoder(pipeline.text_encoder, "text_encoder", EOS, final_norm=final_norm, max_batch=max_batch)
        )
    if getattr(pipeline, "text_encoder_2", None) is not None:
        found.append(
            text_encoder(pipeline.text_encoder_2, "text_encoder_2", "!", final_norm=False, max_batch=max_batch)
        )
    return found
