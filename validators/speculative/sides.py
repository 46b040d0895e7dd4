"""One side of a pair, target or draft: what its config, headers and tokenizer state, whatever their spelling."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mappings import catalog
from mappings.serving import attributes
from mappings.serving import catalog as serving
from validators import quantization
from validators.compatibility.facts import TensorInfo

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Where configs of heads keep the sizes of their decoder layer.
_HEAD_ROOTS = ("", "transformer_layer_config", "text_config", "model")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "word_embeddings.weight")
_OUTPUT_HEADS = ("lm_head.weight", "embed_out.weight")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_CHOSEN_EXPERTS = ("num_experts_per_tok", "experts_per_token", "top_k_experts", "moe_topk")
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NO_WEIGHTS = ("BOOL", "I64")
_LARGEST_SIZE = 1 << 40


class Kind(enum.Enum):
    """What proposes tokens. All but MODEL read the target's hidden states, and are no models of their own."""

    MODEL = "a model of its own"
    EAGLE = "an EAGLE head"
    EAGLE3 = "an EAGLE-3 head"
    MEDUSA = "Medusa heads"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What a checkpoint's tokenizer says of token ids.

    Attributes:
        tokens: the id of each token, added ones included; empty where no file that is read says it.
        digests: sha256 by name of the files in formats that are compared by their bytes alone.
        special_ids: by the names of config fields.
        template: the chat template; None for none.
    """

    tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    special_ids: Mapping[str, int] = dataclasses.field(default_factory=dict)
    template: str | None = None

    @property
    def known(self) -> bool:
        """Whether any file says what the ids stand for."""
        return bool(self.tokens or self.digests)


@dataclasses.dataclass(frozen=True)
class Side:
    """A target or a draft.

    Attributes:
        config: config.json.
        generation: generation_config.json; empty where there is none.
        tensors: headers by name, of stored codes those of the weights that they stand for; None if unreadable.
        vocabulary: of its tokenizer.
    """

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo] | None
    vocabulary: Vocabulary

    def stated(self, path: str) -> Any:
        """The value at a path of the config, in the first place where it has one; None for none."""
        roots = attributes.config_roots(self.family) if self.family else _HEAD_ROOTS
        return attributes.Lookup(self.config, tuple(dict.fromkeys((*roots, *_HEAD_ROOTS))))(path)

    def size(self, *paths: str) -> int | None:
        """The first positive whole number at one of these paths."""
        return next((value for value in map(self.stated, paths) if _is_size(value)), None)

    def meant(self, attribute: str) -> Any:
        """What the config means by an attribute that rules look at, by what it states or what its class assumes."""
        rules = (rule for rule in serving.embedded().rule if rule.config_field.attribute == attribute)
        fitting = (rule for rule in rules if self.family and serving.applies_to(rule, self.family))
        values = (attributes.value_of(rule.config_field, self.config, self.family) for rule in fitting)
        return next((value for value in values if value is not None), None)

    @property
    def vocabulary_size(self) -> int | None:
        """Tokens of the vocabulary: as config.json states it, or its family assumes it, else the embedding's rows."""
        size = self.size("vocab_size") or self.meant("vocab_size")
        if _is_size(size):
            return int(size)
        return self.embedding[1].shape[0] if self.embedding and self.embedding[1].shape else None

    @property
    def family(self) -> str:
        """The family of its architecture; "" for one that the mappings do not know."""
        return catalog.family_of(self.config) or ""

    @property
    def dtype(self) -> str:
        """The dtype that it computes in: as the config names it, else that of most weights; "" if neither says it."""
        named = self.stated("dtype") or self.stated("torch_dtype")
        if isinstance(named, str):
            return named.removeprefix("torch.")
        elements: Counter[str] = Counter()
        for info in (self.tensors or {}).values():
            elements[_FLOATS.get(info.dtype, "")] += math.prod(info.shape)
        del elements[""]
        return elements.most_common(1)[0][0] if elements else ""

    @property
    def stored_as(self) -> str:
        """How the weights are stored, where config.json announces codes; else ""."""
        announced = quantization.announced(self.config)
        if announced is None:
            return ""
        method = announced.get("quant_method")
        return method if isinstance(method, str) else "codes"

    @property
    def positions(self) -> int | None:
        """Tokens that a sequence may have; with YaRN, those that it reaches from the original ones."""
        stated = self.size("max_position_embeddings", "n_positions", "max_sequence_length")
        if stated is None and _is_size(meant := self.meant("max_position_embeddings")):
            stated = int(meant)
        for section in ("rope_scaling", "rope_parameters"):
            factor = self.stated(f"{section}.factor")
            original = self.stated(f"{section}.original_max_position_embeddings")
            kind = self.stated(f"{section}.rope_type") or self.stated(f"{section}.type")
            if kind == "yarn" and _is_number(factor) and _is_size(original):
                stated = max(stated or 0, int(factor * original))
        return stated

    @property
    def parameters(self) -> int | None:
        """Elements of all weights; None if there are no headers. Maps of token ids are none."""
        return None if self.tensors is None else self._elements("")

    @property
    def active_parameters(self) -> int | None:
        """Elements that take part in one token: of experts that are chosen from, those that are."""
        if self.parameters is None:
            return None
        experts, chosen = self.size(*_EXPERT_COUNTS), self.size(*_CHOSEN_EXPERTS)
        if experts is None or chosen is None or chosen > experts:
            return self.parameters
        routed = self._elements(".experts.")
        return self.parameters - routed + routed * chosen // experts

    @property
    def embedding(self) -> tuple[str, TensorInfo] | None:
        """The embedding of tokens."""
        return self._outermost(_EMBEDDINGS)

    @property
    def output_head(self) -> tuple[str, TensorInfo] | None:
        """The matrix that makes logits; None where the embedding does."""
        return self._outermost(_OUTPUT_HEADS)

    def tensor(self, ending: str) -> tuple[str, TensorInfo] | None:
        """The tensor of a name, or of one that ends so behind a dot."""
        return self._outermost((ending,))

    def special_id(self, field: str) -> tuple[frozenset[int], str]:
        """The ids of a special token, and the file that says so: the one that generation looks at first.

        A negative id stands for none, as Llama's configs write it.
        """
        places = (
            ("generation_config.json", self.generation.get(field)),
            ("config.json", self.stated(field)),
            ("tokenizer_config.json", self.vocabulary.special_ids.get(field)),
        )
        for place, value in places:
            ids = frozenset(_ids(value))
            if ids:
                return ids, place
        return frozenset(), ""

    def _elements(self, part: str) -> int:
        """Elements of all weights with this in their names."""
        weights = ((name, info) for name, info in (self.tensors or {}).items() if info.dtype not in _NO_WEIGHTS)
        return sum(math.prod(info.shape) for name, info in weights if part in name)

    def _outermost(self, endings: tuple[str, ...]) -> tuple[str, TensorInfo] | None:
        """The tensor with one of these names; of several, the one that lies in the fewest modules.

        Layers that predict further tokens may have an embedding and a head of their own.
        """
        found = [
            (name, info)
            for name, info in (self.tensors or {}).items()
            if any(name == ending or name.endswith(f".{ending}") for ending in endings)
        ]
        return min(found, key=lambda one: (one[0].count("."), one[0]), default=None)


def kind_of(side: Side) -> tuple[Kind, str]:
    """What a draft is, and what shows it: its config's names, else tensors that no model has."""
    for field in ("speculators_model_type", "model_type", "architectures"):
        value = side.config.get(field)
        texts = [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
        for name in texts:
            kind = _named(name)
            if kind is not None:
                return kind, f"{field} {name[:80]}"
    if side.config.get("medusa_num_heads") is not None:
        return Kind.MEDUSA, "medusa_num_heads in config.json"
    if side.config.get("draft_vocab_size") is not None or (side.tensor("fc.weight") and side.tensor("d2t")):
        return Kind.EAGLE3, "its vocabulary of its own (draft_vocab_size, d2t)"
    projection, hidden = side.tensor("fc.weight"), side.size("hidden_size")
    if projection is not None and len(projection[1].shape) == 2 and not side.output_head:
        three = hidden is not None and projection[1].shape[1] == 3 * hidden
        return (Kind.EAGLE3 if three else Kind.EAGLE), f"the tensor {projection[0]}"
    return Kind.MODEL, "config.json and tensors"


def _named(name: str) -> Kind | None:
    letters = name.lower().replace("-", "").replace("_", "")
    for word, kind in (("eagle3", Kind.EAGLE3), ("eagle", Kind.EAGLE), ("medusa", Kind.MEDUSA)):
        if word in letters:
            return kind
    return None


def _ids(value: Any) -> Iterator[int]:
    for each in value if isinstance(value, list) else [value]:
        if type(each) is int and each >= 0:
            yield each


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_SIZE


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= _LARGEST_SIZE
