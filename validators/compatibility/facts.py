"""What the rules look at: the facts of one checkpoint, read from its config, headers, tokenizer and folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as a header states it.

    Attributes:
        shape: sizes, outermost first.
        dtype: as safetensors names it ("BF16").
    """

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a checkpoint's tokenizer states. None stands for what its files do not say.

    Attributes:
        vocabulary_size: the highest token id and one, added tokens included.
        token_count: how many tokens have an id.
        special_ids: id of each special token by the name of its field (`bos_token_id`, `eos_token_id`, ...).
        token_map_digest: sha256 of the map from token to id.
        chat_template: the template's text.
        tokenizer_class: as tokenizer_config.json names it.
        tokens: the id of each token; empty where only `vocabulary_size` is known.
    """

    vocabulary_size: int | None = None
    token_count: int | None = None
    special_ids: Mapping[str, int] = dataclasses.field(default_factory=dict)
    token_map_digest: str | None = None
    chat_template: str | None = None
    tokenizer_class: str | None = None
    tokens: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False)

    def size_without(self, names: Collection[str]) -> int | None:
        """The vocabulary's size if tokens of these names are left out."""
        kept = [number for token, number in self.tokens.items() if token not in names]
        return max(kept) + 1 if kept else self.vocabulary_size


@dataclasses.dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """One checkpoint as far as the rules look at it.

    Attributes:
        config: config.json.
        tensors: headers of all shards by the names of tensors.
        files: sizes in bytes by name, relative to the checkpoint's folder, with `/` between parts.
        tokenizer: None if the tokenizer's files cannot be read; then the rules about it fail and say so.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, int]
    tokenizer: TokenizerFacts | None = None
