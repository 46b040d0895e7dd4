"""The text of every error of a pair, as the FINAL REPORT prints it."""

from __future__ import annotations

import re
from pathlib import Path

from mappings.serving import text
from recast_proto import error_pb2, serving_catalog_pb2
from tests.speculative import pairs
from tests.speculative.pairs import set_config, set_generation, set_shape, set_token
from tests.speculative.validating import judge

GOLDEN = """\
  Id: RecastErrorId.DRAFT_VOCABULARY_SIZE
  Responsible: RecastErrorOwner.USAGE
  Reason: lm_head.weight of the target has 96 rows, lm_head.weight of the draft 40000.
  Subject: lm_head rows
  Suggestion: Take a draft whose vocabulary has the target's size: the target judges every token by its id.

  Id: RecastErrorId.DRAFT_TOKEN_MAP
  Responsible: RecastErrorOwner.USAGE
  Reason: 1 id stands for different tokens: 3 is "red" in the target, no token in the draft.
  Subject: token -> id map
  Suggestion: Take a draft with the target's tokenizer: one id must mean one token on both sides.

  Id: RecastErrorId.DRAFT_SPECIAL_IDS
  Responsible: RecastErrorOwner.USAGE
  Reason: bos_token_id is 0 in the target (generation_config.json), 5 in the draft (generation_config.json).
  Subject: bos_token_id
  Suggestion: Give both sides the same ids in generation_config.json and config.json.

  Id: RecastErrorId.DRAFT_DEPLOYMENT
  Responsible: RecastErrorOwner.USAGE
  Reason: The models share no batch size at 4096.
  Subject: batch sizes
  Suggestion: Choose two models that share a length and a batch size; the catalogue lists those of each.

  Id: RecastErrorId.DRAFT_POSITIONS
  Responsible: RecastErrorOwner.USAGE
  Reason: max_position_embeddings is 512, and the shortest sequence length of the pair is 4096.
  Subject: positions of the draft
  Suggestion: Take a checkpoint for longer sequences, or deploy the pair at a length that both sides reach.

  Id: RecastErrorId.DRAFT_DTYPE
  Responsible: RecastErrorOwner.USAGE
  Reason: The target computes in 16 bits (bfloat16), the draft in 32 (float32).
  Subject: dtype class
  Suggestion: Save one side again in the dtype of the other.

  Id: RecastErrorId.DRAFT_NOT_SMALLER
  Responsible: RecastErrorOwner.USAGE
  Reason: The draft has 321432 parameters, the target 61856; a draft must be smaller.
  Subject: parameters
  Suggestion: Check that the two paths are not exchanged; a draft that is no smaller than its target gains nothing.

  Id: RecastErrorId.DRAFT_TOKENS
  Responsible: RecastErrorOwner.USAGE
  Reason: 0 is no number of tokens to propose.
  Subject: num_speculative_tokens
  Suggestion: Choose another --num_speculative_tokens.

> Warnings
  Id: RecastErrorId.DRAFT_ADVICE
  Responsible: RecastErrorOwner.USAGE
  Reason: They differ: the draft was trained on another form of conversation.
  Subject: chat template
  Suggestion: The pair can be deployed; drafts may be accepted less often, or take longer, than they could.

  Id: RecastErrorId.DRAFT_ADVICE
  Responsible: RecastErrorOwner.USAGE
  Reason: The target takes 0.2 times the draft's parameters for a token; 4 times or more pay.
  Subject: parameters for a token
  Suggestion: Take a smaller draft.

"""

GOLDEN_HEAD = """\
  Id: RecastErrorId.DRAFT_HEAD
  Responsible: RecastErrorOwner.USAGE
  Reason: The head does not fit: it proposes 24 of the target's 96 tokens, and no tensor d2t says which.
  Subject: vocabulary map
  Suggestion: Take the head that was trained for this target.

"""


def test_everything_that_a_pair_can_violate_at_once(pair: Path) -> None:
    catalog = serving_catalog_pb2.ServingCatalog(schema_version=1, version="1")
    for name, batch in (("large", 1), ("small", 2)):
        model = catalog.model.add(name=name, family="llama", config_json="{}", import_checkpoint=True)
        model.deployment.add(sequence_length=4096, batch_size=[batch], speculative_decoding=True)
    (pair / "catalog.textproto").write_text(text.dump(catalog), "utf-8")
    pairs.all_of(
        set_shape("lm_head.weight", 40000, 8),
        set_token("red", 90),
        set_generation(bos_token_id=5),
        set_config(dtype="float32", max_position_embeddings=512),
        pairs.write("chat_template.jinja", b"{{ messages }}"),
    )(pair / "draft")
    server = f"--server={pair / 'catalog.textproto'}"
    run = judge(pair, server, "--target_model=large", "--draft_model=small", "--num_speculative_tokens=0").run
    assert _errors(run.output) == GOLDEN


def test_a_head_that_does_not_fit(pair: Path) -> None:
    set_shape("d2t")(pair / "eagle3")
    assert _errors(judge(pair, draft="eagle3").run.output) == GOLDEN_HEAD


def test_every_id_of_a_pair_has_its_text_here() -> None:
    shown = set(re.findall(r"RecastErrorId\.(\w+)", GOLDEN + GOLDEN_HEAD))
    assert shown == {name for name in error_pb2.RecastErrorId.keys() if name.startswith("DRAFT_")}


def _errors(output: str) -> str:
    """What validate_pair found, without the stack trace and the table."""
    block = output.partition("STEP: validate_pair - Failed")[2].partition("> Errors\n")[2].partition("> Details")[0]
    return re.sub(r"  Stack Trace:\n(?:    .*\n)+\n", "", block)
