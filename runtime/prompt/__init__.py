"""Makes embeddings from text: tokenising, weighting, long prompts, textual inversion; without torch or transformers."""

from .bracket_weights import Fragment, parse_weights
from .embeddings import embeddings_file, load_embeddings
from .encode import EncodedPrompts, encode_prompts
from .encoder import TextEncoder, TextEncoderCall
from .inversion import (
    InversionSource,
    TextualInversion,
    inversion_notes,
    inversions_in_lora,
    load_inversions,
    with_inversions,
)
from .layout import LongPrompt
from .prompt_request import PromptRequest
from .tokenizer import Tokenizer

__all__ = [
    "EncodedPrompts",
    "Fragment",
    "InversionSource",
    "LongPrompt",
    "PromptRequest",
    "TextEncoder",
    "TextEncoderCall",
    "TextualInversion",
    "Tokenizer",
    "embeddings_file",
    "encode_prompts",
    "inversion_notes",
    "inversions_in_lora",
    "load_embeddings",
    "load_inversions",
    "parse_weights",
    "with_inversions",
]
