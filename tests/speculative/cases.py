"""The table of pairs: what is changed in a good one, and which rows are then refused or warn, with their reasons."""

from __future__ import annotations

import dataclasses

from tests.speculative import pairs
from tests.speculative.pairs import Damage, set_config, set_generation, set_shape, set_token
from validators.vocabulary_samples import PIECES_24

ALL_CHECKS = (
    "draft",
    "architecture family",
    "vocabulary size",
    "embedding rows",
    "lm_head rows",
    "token -> id map",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "chat template",
    "import checkpoint",
    "sequence lengths",
    "batch sizes",
    "positions of the target",
    "positions of the draft",
    "dtype class",
    "parameters",
    "parameters for a token",
    "num_speculative_tokens",
)
"""The rows of a draft that is a model of its own, in their order."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One pair: what is changed in the good one, and the rows that are then refused or warn, with their reasons."""

    name: str
    draft: Damage | None = None
    target: Damage | None = None
    refused: tuple[tuple[str, str, str], ...] = ()
    warned: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    kind: str = "draft"


CASES = (
    Case("a smaller model with the same tokenizer"),
    Case("an EAGLE head of the same dtype", kind="eagle", draft=set_config(torch_dtype="bfloat16")),
    Case("an EAGLE-3 head", kind="eagle3"),
    Case("Medusa heads", kind="medusa", arguments=("--num_speculative_tokens=3",)),
    Case(
        "another vocabulary",
        draft=pairs.all_of(
            set_config(vocab_size=95),
            set_shape("model.embed_tokens.weight", 95, 8),
            set_shape("lm_head.weight", 95, 8),
        ),
        refused=(
            (
                "vocabulary size",
                "DRAFT_VOCABULARY_SIZE",
                "vocab_size is 96 in the target and 95 in the draft; they must be equal.",
            ),
            (
                "embedding rows",
                "DRAFT_VOCABULARY_SIZE",
                "model.embed_tokens.weight of the target has 96 rows, model.embed_tokens.weight of the draft 95.",
            ),
            (
                "lm_head rows",
                "DRAFT_VOCABULARY_SIZE",
                "lm_head.weight of the target has 96 rows, lm_head.weight of the draft 95.",
            ),
        ),
    ),
    Case(
        "a padded output head",
        draft=set_shape("lm_head.weight", 128, 8),
        refused=(
            (
                "lm_head rows",
                "DRAFT_VOCABULARY_SIZE",
                "lm_head.weight of the target has 96 rows, lm_head.weight of the draft 128.",
            ),
        ),
    ),
    Case(
        "tied embeddings in the draft",
        draft=pairs.all_of(set_shape("lm_head.weight"), set_config(tie_word_embeddings=True)),
    ),
    Case(
        "two tokens exchanged",
        draft=pairs.all_of(set_token("red", 4), set_token("green", 3)),
        refused=(
            (
                "token -> id map",
                "DRAFT_TOKEN_MAP",
                '2 ids stand for different tokens: 3 is "red" in the target, "green" in the draft; '
                '4 is "green" in the target, "red" in the draft.',
            ),
        ),
    ),
    Case(
        "a token moved to a free id",
        draft=set_token("red", 90),
        refused=(
            (
                "token -> id map",
                "DRAFT_TOKEN_MAP",
                '1 id stands for different tokens: 3 is "red" in the target, no token in the draft.',
            ),
        ),
    ),
    Case(
        "a token that only the target has",
        draft=set_token("seven", None),
        warned=(
            (
                "token -> id map",
                "No id stands for two tokens, but some tokens are on one side only: 1 in the target alone: "
                '"seven" (12).',
            ),
        ),
    ),
    Case(
        "no tokenizer",
        draft=pairs.remove("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
        refused=(
            (
                "token -> id map",
                "DRAFT_TOKEN_MAP",
                "The draft has no tokenizer: nothing says what the ids stand for.",
            ),
        ),
        warned=(("chat template", "Only the target has one; the draft may be of another kind of training."),),
    ),
    Case(
        "tokenizers in two formats",
        draft=pairs.all_of(pairs.remove("tokenizer.json"), pairs.write("tokenizer.model", PIECES_24)),
        refused=(
            (
                "token -> id map",
                "DRAFT_TOKEN_MAP",
                "One side's tokenizer is tokenizer.json, the other's is in a format that is compared by its bytes.",
            ),
        ),
    ),
    Case(
        "another begin of sequence",
        draft=set_generation(bos_token_id=5),
        refused=(
            (
                "bos_token_id",
                "DRAFT_SPECIAL_IDS",
                "bos_token_id is 0 in the target (generation_config.json), 5 in the draft (generation_config.json).",
            ),
        ),
    ),
    Case(
        "another end of sequence in config.json alone",
        draft=pairs.all_of(set_generation(eos_token_id=None), set_config(eos_token_id=7)),
        refused=(
            (
                "eos_token_id",
                "DRAFT_SPECIAL_IDS",
                "eos_token_id is 1 in the target (generation_config.json), 7 in the draft (config.json).",
            ),
        ),
    ),
    Case(
        "another padding",
        draft=set_generation(pad_token_id=9),
        refused=(
            (
                "pad_token_id",
                "DRAFT_SPECIAL_IDS",
                "pad_token_id is 2 in the target (generation_config.json), 9 in the draft (generation_config.json).",
            ),
        ),
    ),
    Case(
        "further ends of sequence in the target",
        target=set_generation(eos_token_id=[1, 7, 8]),
        warned=(
            (
                "eos_token_id",
                "eos_token_id is 1, 7, 8 in the target (generation_config.json), 1 in the draft "
                "(generation_config.json): the draft goes on where the target ends, or ends where it goes on.",
            ),
        ),
    ),
    Case(
        "another chat template",
        draft=pairs.write("chat_template.jinja", b"{{ messages }}"),
        warned=(("chat template", "They differ: the draft was trained on another form of conversation."),),
    ),
    Case(
        "no chat template in the draft",
        draft=pairs.remove("chat_template.jinja"),
        warned=(("chat template", "Only the target has one; the draft may be of another kind of training."),),
    ),
    Case(
        "fewer positions in the draft",
        draft=set_config(max_position_embeddings=2048),
        warned=(
            (
                "positions of the draft",
                "The pair is limited to 2048 tokens; the target alone reaches 16384.",
            ),
        ),
    ),
    Case(
        "a draft in 32 bits",
        draft=set_config(dtype="float32"),
        refused=(
            (
                "dtype class",
                "DRAFT_DTYPE",
                "The target computes in 16 bits (bfloat16), the draft in 32 (float32).",
            ),
        ),
    ),
    Case(
        "the other dtype of 16 bits",
        draft=set_config(dtype="float16"),
        warned=(("dtype class", "Both compute in 16 bits, the target in bfloat16, the draft in float16."),),
    ),
    Case(
        "another family",
        draft=set_config(model_type="mistral", architectures=["MistralForCausalLM"]),
        warned=(("architecture family", "The target is of the family llama, the draft of mistral."),),
    ),
    Case(
        "no tokens at a time",
        arguments=("--num_speculative_tokens=0",),
        refused=(("num_speculative_tokens", "DRAFT_TOKENS", "0 is no number of tokens to propose."),),
    ),
    Case(
        "tokens that are no multiple of what the draft predicts",
        draft=set_config(n_predict=3),
        arguments=("--num_speculative_tokens=5",),
        refused=(
            (
                "num_speculative_tokens",
                "DRAFT_TOKENS",
                "The draft proposes 3 tokens at a time, and 5 is no multiple of that.",
            ),
        ),
    ),
    Case(
        "a multiple of what the draft predicts",
        draft=set_config(n_predict=3),
        arguments=("--num_speculative_tokens=6",),
    ),
    Case(
        "fewer than what the draft predicts",
        draft=set_config(n_predict=3),
        arguments=("--num_speculative_tokens=2",),
    ),
    Case(
        "more tokens than a sequence has",
        arguments=("--num_speculative_tokens=16384",),
        refused=(("num_speculative_tokens", "DRAFT_TOKENS", "16384 tokens do not fit into a sequence of 16384."),),
    ),
    Case(
        "more tokens than Medusa heads",
        kind="medusa",
        arguments=("--num_speculative_tokens=4",),
        refused=(("num_speculative_tokens", "DRAFT_TOKENS", "4 tokens cannot be proposed by 3 heads, one each."),),
    ),
    Case(
        "Medusa heads of another width",
        kind="medusa",
        draft=set_shape("blocks.1.layers.0.weight", 48, 48),
        refused=(
            (
                "Medusa blocks",
                "DRAFT_HEAD",
                "blocks.1.layers.0.weight is 48 x 48; for this target matrices are 32 x 32 or 96 x 32.",
            ),
        ),
    ),
    Case(
        "an EAGLE-3 head of another hidden size",
        kind="eagle3",
        draft=pairs.all_of(set_config(hidden_size=48), set_shape("fc.weight", 48, 144)),
        refused=(
            (
                "hidden size",
                "DRAFT_HEAD",
                "The head reads hidden states of size 48, and the target's have 32.",
            ),
            (
                "feature projection",
                "DRAFT_HEAD",
                "fc.weight is 48 x 144; for this target it must be 48 x 96, 3 x 32 wide.",
            ),
        ),
    ),
    Case(
        "an EAGLE-3 head that says which hidden size it reads",
        kind="eagle3",
        draft=pairs.all_of(set_config(hidden_size=48, target_hidden_size=32), set_shape("fc.weight", 48, 96)),
    ),
    Case(
        "an EAGLE head without its projection",
        kind="eagle",
        draft=pairs.all_of(
            set_config(architectures=["EagleLlamaForCausalLM"], torch_dtype="bfloat16"), set_shape("fc.weight")
        ),
        refused=(("feature projection", "DRAFT_HEAD", "There is no tensor fc.weight, which an EAGLE head needs."),),
    ),
    Case(
        "an EAGLE-3 head without its map of ids",
        kind="eagle3",
        draft=set_shape("d2t"),
        refused=(
            (
                "vocabulary map",
                "DRAFT_HEAD",
                "The head does not fit: it proposes 24 of the target's 96 tokens, and no tensor d2t says which.",
            ),
        ),
    ),
    Case(
        "maps of other lengths",
        kind="eagle3",
        draft=pairs.all_of(set_shape("d2t", 25), set_shape("t2d", 95)),
        refused=(
            (
                "vocabulary map",
                "DRAFT_HEAD",
                "The head does not fit: d2t is I64 25, not 24 integers; t2d is BOOL 95, not 96 truth values.",
            ),
        ),
    ),
    Case(
        "an EAGLE-3 head for another vocabulary",
        kind="eagle3",
        draft=pairs.all_of(set_config(vocab_size=100), set_shape("t2d", 100)),
        refused=(
            (
                "vocabulary size",
                "DRAFT_VOCABULARY_SIZE",
                "vocab_size is 96 in the target and 100 in the draft; they must be equal.",
            ),
            ("vocabulary map", "DRAFT_HEAD", "The head does not fit: t2d is BOOL 100, not 96 truth values."),
        ),
    ),
    Case(
        "several at once, on both sides",
        target=set_generation(eos_token_id=[1, 7]),
        draft=pairs.all_of(
            set_generation(bos_token_id=5),
            set_config(dtype="float32", max_position_embeddings=128),
            set_token("red", 90),
        ),
        arguments=("--num_speculative_tokens=-1",),
        refused=(
            (
                "token -> id map",
                "DRAFT_TOKEN_MAP",
                '1 id stands for different tokens: 3 is "red" in the target, no token in the draft.',
            ),
            (
                "bos_token_id",
                "DRAFT_SPECIAL_IDS",
                "bos_token_id is 0 in the target (generation_config.json), 5 in the draft (generation_config.json).",
            ),
            (
                "dtype class",
                "DRAFT_DTYPE",
                "The target computes in 16 bits (bfloat16), the draft in 32 (float32).",
            ),
            ("num_speculative_tokens", "DRAFT_TOKENS", "-1 is no number of tokens to propose."),
        ),
        warned=(
            (
                "eos_token_id",
                "eos_token_id is 1, 7 in the target (generation_config.json), 1 in the draft "
                "(generation_config.json): the draft goes on where the target ends, or ends where it goes on.",
            ),
            (
                "positions of the draft",
                "The pair is limited to 128 tokens; the target alone reaches 16384.",
            ),
        ),
    ),
)
