"""Text -> embeddings: tokenising, weighting, long prompts and textual inversion, without torch or transformers."""

from .encode import EncodedPrompts, encode_prompts
from .encoder import TextEncoder, TextEncoderCall
from .family import TEXT_FAMILIES, TextFamily
from .layout import LongPrompt
from .request import PromptRequest
from .tokenizer import Tokenizer
from .weights import Fragment, parse_weights

__all__ = [
    "TEXT_FAMILIES",
    "EncodedPrompts",
    "Fragment",
    "LongPrompt",
    "PromptRequest",
    "TextEncoder",
    "TextEncoderCall",
    "TextFamily",
    "Tokenizer",
    "encode_prompts",
    "parse_weights",
]
