"""CLIP's tokenizer, on the ``tokenizers`` package alone.

The token ids equal those of transformers' ``CLIPTokenizer`` (release 5) for any text, whichever way the vocabulary
is stored: NFC, runs of whitespace to one space, lower case, CLIP's word pattern, byte-level byte-pair encoding.

A tokenizer holds no state that a call could change (no padding, no truncation), so threads may share it.
"""

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from ...engines.errors import BundleError, UsageError
from .vocabulary import Vocabulary, read_vocabulary

__all__ = ["Tokenizer"]

# What a word is (openai/CLIP, simple_tokenizer.py): markers, contractions, letters, single digits, the rest.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Text -> token ids, without the markers at start and end.

    Attributes:
        bos: id of the start marker.
        eos: id of the end marker.
        pad: id that fills a sequence up; SDXL's second tokenizer and SD 2's pad with ``!``, id 0.
        max_length: tokens of a sequence with both markers, 77 for every CLIP.
        vocab_size: number of ids, those of markers included, those of placeholders not.
        placeholders: words added by :meth:`with_placeholders`.

    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._model = tokenizers.models.BPE(
            vocab=vocabulary.ids,
            merges=vocabulary.merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=vocabulary.unk,
        )
        self._backend = _backend(self._model, vocabulary.markers)
        self._renumbered: dict[int, int] = {}
        self.placeholders: tuple[str, ...] = ()
        self.bos = self._id(vocabulary.bos)
        self.eos = self._id(vocabulary.eos)
        self.pad = self._id(vocabulary.pad)
        self.max_length = vocabulary.max_length
        self.vocab_size: int = self._backend.get_vocab_size()

    @classmethod
    def from_folder(cls, path: str | Path) -> "Tokenizer":
        """Read a checkpoint's or a bundle's tokenizer folder.

        It holds ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``; and may hold ``tokenizer_config.json``,
        ``special_tokens_map.json`` and ``added_tokens.json``.

        Raises:
            BundleError: there is no tokenizer in it, or it is damaged or not CLIP's kind.

        """
        try:
            return cls(read_vocabulary(Path(path)))
        except BundleError:
            raise
        except Exception as error:  # what the tokenizers package raises has no narrower class
            raise BundleError(f"{path} holds a damaged tokenizer: {error}") from error

    def with_pad(self, token: str) -> "Tokenizer":
        """Return a tokenizer that pads with another token, as a bundle's manifest may say.

        Raises:
            BundleError: the token is not in the vocabulary.

        """
        if not self.knows(token):
            raise BundleError(f"the tokenizer is to pad with {token!r}, which is not in its vocabulary")
        padded = object.__new__(Tokenizer)
        padded.__dict__.update(self.__dict__)
        padded.pad = self._id(token)
        return padded

    def with_placeholders(self, tokens: Sequence[str], first_id: int) -> "Tokenizer":
        """Return a tokenizer that knows these words, each whole and found anywhere, as ids from ``first_id`` on.

        They take the place of placeholders it had. As in diffusers' textual inversion, a placeholder is compared in
        lower case and need not stand alone.
        """
        extended = object.__new__(Tokenizer)
        extended.__dict__.update(self.__dict__)
        extended._backend = _backend(self._model, self._vocabulary.markers)
        extended._backend.add_tokens(list(tokens))
        extended._renumbered = {extended._id(token): first_id + i for i, token in enumerate(tokens)}
        extended.placeholders = tuple(tokens)
        return extended

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text, of any length, without start and end markers.

        Raises:
            UsageError: the text is not valid Unicode.

        """
        if self._renumbered:
            ids = self._encoding(self._spelt_out(text)).ids
            return [self._renumbered.get(i, i) for i in ids]
        return list(self._encoding(text).ids)

    def _spelt_out(self, text: str) -> str:
        """Follow a placeholder that stands for several vectors, ``word``, by those of the others, ``word_1`` ...

        As in diffusers (``TextualInversionLoaderMixin.maybe_convert_prompt``), only where it is written in its own
        case.
        """
        for token in dict.fromkeys(self._encoding(text).tokens):
            if token in self.placeholders and f"{token}_1" in self.placeholders:
                words, i = [token], 1
                while (word := f"{token}_{i}") in self.placeholders:
                    words.append(word)
                    i += 1
                text = text.replace(token, " ".join(words))
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Return readable text of ids, for messages."""
        names = {new: old for old, new in self._renumbered.items()}
        text: str = self._backend.decode([names.get(i, i) for i in ids], skip_special_tokens=False)
        return text.replace("</w>", " ").strip()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of ids, as the vocabulary has them."""
        names = {new: old for old, new in self._renumbered.items()}
        return [str(self._backend.id_to_token(names.get(int(i), int(i)))) for i in ids]

    def knows(self, token: str) -> bool:
        """Whether the token is in the vocabulary, marker and placeholders included."""
        return self._backend.token_to_id(token) is not None

    def _encoding(self, text: str) -> tokenizers.Encoding:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the prompt is not valid Unicode: character {error.start} is the lone surrogate "
                f"U+{ord(text[error.start]):04X}"
            ) from error
        return self._backend.encode(text, add_special_tokens=False)

    def _id(self, token: str) -> int:
        number: int | None = self._backend.token_to_id(token)
        if number is None:
            raise KeyError(token)
        return number


def _backend(model: tokenizers.models.BPE, markers: Sequence[tokenizers.AddedToken]) -> tokenizers.Tokenizer:
    """Build the pipeline around the model, which several of them may share."""
    normalizers, pre_tokenizers = tokenizers.normalizers, tokenizers.pre_tokenizers
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_tokens(list(markers))
    return backend
