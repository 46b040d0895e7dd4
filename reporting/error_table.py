"""The table of all error ids in docs/errors.md: `python -m reporting.error_table > docs/errors.md`."""

from __future__ import annotations

from collections.abc import Mapping

from recast_proto import error_pb2
from reporting import console
from reporting.diagnostics import Diagnostic, exit_code_of

MEANINGS: Mapping[str, str] = {
    "INVALID_FLAG": "A flag or argument is unknown, missing or has an impossible value.",
    "UNKNOWN_SUBCOMMAND": "There is no such subcommand.",
    "HF_MODEL_PATH_REQUIRED": "The directory of the Hugging Face checkpoint was not given; Recast downloads nothing.",
    "REMOTE_NOT_SUPPORTED": "A path begins with a scheme such as `gs://`.",
    "NOT_SUPPORTED_YET": "What a mapping asks for is known, but nothing implements it yet.",
    "MODEL_NAME_UNKNOWN": "No published model and no layout has this name.",
    "MODEL_NAME_AMBIGUOUS": "Several models fit the files, and they store different values.",
    "MODEL_NAME_MISMATCH": "The named model differs from config.json, or from what the checkpoint was written with.",
    "EXACTNESS_NOT_MET": "An array would be ROUNDING or LOSSY, and `--require_exact` was given.",
    "SCAN_LAYERS_MISMATCH": "`--scan_layers` or the metadata contradicts the arrays of the checkpoint.",
    "SOURCE_NOT_READABLE": "The user of the process may not read a file of the source.",
    "SOURCE_NOT_FOUND": "The source, or one of its files, is not there.",
    "SOURCE_NOT_RECOGNIZED": "The source holds no checkpoint of the format that is read.",
    "DESTINATION_EXISTS": "Something is at the destination that this run may not replace.",
    "DESTINATION_NOT_WRITABLE": "This user may not write to the destination.",
    "DESTINATION_INSIDE_SOURCE": "The destination lies in the source, or holds it.",
    "DISK_SPACE": "The output is larger than the free space, found before the first byte is written.",
    "DISK_FULL": "The file system became full, or a quota was reached, during the run.",
    "INPUT_OUTPUT": "The operating system reported an error while reading or writing.",
    "DESTINATION_BUSY": "Another run is writing to the same destination.",
    "MISSING_SHARD": "A file that the index names, or that the numbering implies, is not there.",
    "MISSING_INDEXED_TENSOR": "The index places a tensor in a file that does not hold it.",
    "UNINDEXED_TENSOR": "A file holds a tensor that the index does not name.",
    "INDEX_INVALID": "The index is no JSON, says nothing, or stands beside another checkpoint.",
    "PATH_ESCAPES": "A name in the metadata leads out of the checkpoint's directory.",
    "FILE_TRUNCATED": "A file ends before its header or its data do.",
    "HEADER_INVALID": "The header of a safetensors file is damaged, or the file is something else.",
    "OFFSETS_INVALID": "Byte ranges of tensors overlap, leave gaps, or do not match their shapes.",
    "DTYPE_NOT_SUPPORTED": "A tensor has a type of element that Recast does not know.",
    "DUPLICATE_TENSOR": "Two files hold a tensor of the same name.",
    "CHECKPOINT_UNFINISHED": "An Orbax save was interrupted, and the checkpoint is not complete.",
    "ORBAX_METADATA_INVALID": "The metadata of an Orbax checkpoint is damaged.",
    "ORBAX_ARRAY_UNREADABLE": "An array of an Orbax checkpoint is not there, or damaged.",
    "CONFIG_MISSING": "There is no config.json, and no published model was named.",
    "CONFIG_INVALID": "config.json, or another file that travels with the weights, cannot be read.",
    "CONFIG_FIELD_MISSING": "config.json lacks a field that the family needs.",
    "CONFIG_FIELD_INVALID": "A field of config.json has a value that no model of the family has.",
    "UNKNOWN_ARCHITECTURE": "No family that Recast knows has this model_type or architecture.",
    "UNKNOWN_ROPE_TYPE": "The kind of rotary embedding is none that the family has.",
    "CONFIG_CONTRADICTS_TENSORS": "config.json describes another model than the tensors are.",
    "UNKNOWN_TENSOR": "A tensor of the source is none of the model's.",
    "MISSING_TENSOR": "A tensor of the model is not in the source.",
    "TENSOR_SHAPE": "A tensor has another shape than config.json implies.",
    "TENSOR_DTYPE": "A tensor's elements are of a type that weights do not have.",
    "TIE_DOES_NOT_HOLD": "Two tensors that the config says are one differ.",
    "TENSOR_NOT_FINITE": "A tensor holds NaN or infinite values.",
    "TENSOR_OVERFLOWED": "Finite values became infinite: a dtype that they pass through is too narrow.",
    "TENSOR_ALL_ZERO": "A tensor holds nothing but zeros.",
    "RESIDUE_REFUSED": "Elements or tensors would not come back, and `--residue=refuse` was given.",
    "RESIDUE_STALE": "Weights changed since the residue was recorded.",
    "RESIDUE_INVALID": "The `recast/` folder of the source is damaged, or does not belong to it.",
    "REQUIREMENT_NOT_MET": "Fields of config.json contradict each other.",
    "TENSOR_NOT_ZERO": "The target has no place for a tensor, which must therefore be zero and is not.",
    "COPIES_DIFFER": "Copies of one tensor, which must be equal, are not.",
    "COPIES_DIFFER_FIRST_TAKEN": "Copies of one tensor differ, where the original tools do not look either.",
    "SCALE_INVALID": "A scale of a quantised array is zero, NaN or infinite.",
    "OUT_OF_MEMORY": "An allocation failed during the run.",
    "MEMORY_PLAN": "The plan needs more memory than the budget or the machine has, found before the first byte.",
    "TERMINATED": "The run was stopped by SIGTERM or Ctrl-C.",
    "SOURCE_CHANGED": "The source's files changed during the run.",
    "VERIFICATION_FAILED": "What was read back from the output is not what the source implies.",
    "MAPPING_INVALID": "The rules of a family have a fault.",
    "INTERNAL": "An error that nobody foresaw.",
    "QUICKSTART_FAILED": "The tour did not bring back the model that it made.",
    "MANIFEST_INVALID": "checkpoint-manifest.json or DONE is missing or damaged, or they do not belong together.",
    "CHECKPOINT_DAMAGED": "A file or tensor is not what the manifest lists: changed, missing or added.",
    "CHECKPOINTS_DIFFER": "`diff` found a tensor that one side lacks, or whose shape, dtype or values differ.",
    "TRAIN_STATE_MISSING": "A training checkpoint was asked for, and the source holds weights only.",
    "TRAIN_STATE_INCOMPLETE": "A part of the training state, such as a moment, has arrays for only some weights.",
    "TRAIN_STATE_NOT_RESTACKABLE": "A part of the training state has other shapes than the weights it belongs to, so "
    "that nothing says how it would be stacked.",
    "CANNOT_STACK": "Layers that were to be stacked differ in shape or type; the message names them.",
    "WORKER_KILLED": "A signal ended the process that did the work, and nothing says that it was for memory.",
    "PREVIOUS_RUN_KILLED": "An earlier run of this destination ended without a report.",
    "UNFINISHED_RUN": "An unfinished run of another request, source or plan is there, or one with damaged files.",
    "FAMILY_INCOMPLETE": "A step of the checklist of a model family, which `check-family` runs, is not fulfilled.",
    "TRANSFORMERS_VERSION_ERROR": "A newer version of transformers than the deployment's saved the checkpoint.",
    "TRANSFORMERS_VERSION_UNKNOWN": "config.json does not say which version of transformers saved the checkpoint.",
    "UNSUPPORTED_MODEL": "The catalogue does not hold the model, or the platform takes no checkpoints of it.",
    "TOKENIZER_INVALID": "A file of the tokenizer is damaged, or gives two tokens one id.",
    "METADATA_NOT_FOUND": "No catalogue of serving metadata is where it was looked for; the message lists the places.",
    "METADATA_SERVER_MISMATCH": "The cache was made for another server than the one that is named.",
    "METADATA_INVALID": "A catalogue of a cache or file is damaged, or has models that nothing can use.",
    "METADATA_SCHEMA_NEWER": "A catalogue is written in a newer schema than this version reads.",
    "SERVER_UNREACHABLE": "A server could not be reached, broke off, was too slow or failed, also when asked again.",
    "SERVER_NOT_TRUSTED": "The certificate of a server cannot be verified.",
    "SERVER_REFUSED": "A server does not want to give the catalogue: the key, or the address, is not right.",
    "SERVER_REDIRECTED": "A server names another place, to which the request may not follow.",
    "SERVER_ANSWER_INVALID": "What a server sent is no catalogue, or one that is damaged, too large or unusable.",
    "API_KEY_INVALID": "The file or environment variable with the key of a server is missing or holds no key.",
    "API_KEY_NOT_SENT": "A key would have gone over a connection that others can read.",
    "MODEL_TYPE_MISMATCH": "`model_type` is not that of the platform's model.",
    "ARCHITECTURE_MISMATCH": "None of `architectures` is one of the platform's model.",
    "HIDDEN_SIZE_MISMATCH": "The width differs from that of the platform's model.",
    "LAYER_COUNT_MISMATCH": "The number of layers differs from that of the platform's model.",
    "ATTENTION_HEADS_MISMATCH": "The number of attention heads differs from that of the platform's model.",
    "KEY_VALUE_HEADS_MISMATCH": "The number of key and value heads differs from that of the platform's model.",
    "HEAD_DIM_MISMATCH": "The size of a head, stated or derived, differs from that of the platform's model.",
    "INTERMEDIATE_SIZE_MISMATCH": "The width of the MLP differs from that of the platform's model.",
    "VOCAB_SIZE_MISMATCH": "The vocabulary size differs from that of the platform's model.",
    "HIDDEN_ACT_MISMATCH": "The activation differs from that of the platform's model.",
    "NORM_EPSILON_MISMATCH": "`rms_norm_eps` differs from that of the platform's model.",
    "ROPE_TYPE_MISMATCH": "The kind of rotary embedding differs from that of the platform's model.",
    "ROPE_THETA_MISMATCH": "The base of the rotary frequencies differs from that of the platform's model.",
    "ROPE_SCALING_MISMATCH": "The parameters of the scaled rotary embedding differ from those of the platform's model.",
    "ATTENTION_BIAS_MISMATCH": "One of checkpoint and platform's model has biases in attention.",
    "MLP_BIAS_MISMATCH": "One of checkpoint and platform's model has biases in the MLP.",
    "ATTENTION_DROPOUT_MISMATCH": "`attention_dropout` differs from that of the platform's model.",
    "TIED_EMBEDDINGS_MISMATCH": "One of checkpoint and platform's model ties its output head to the embedding.",
    "SLIDING_WINDOW_MISMATCH": "The window of attention differs from that of the platform's model.",
    "LAYER_KINDS_MISMATCH": "The layers are of other kinds than those of the platform's model.",
    "EXPERTS_MISMATCH": "The experts, or how they are chosen, differ from those of the platform's model.",
    "LATENT_ATTENTION_MISMATCH": "The sizes of latent attention differ from those of the platform's model.",
    "LINEAR_ATTENTION_MISMATCH": "The sizes of linear attention differ from those of the platform's model.",
    "ATTENTION_SCALE_MISMATCH": "A bound or scale of logits or attention differs from that of the platform's model.",
    "LAYER_SIZES_MISMATCH": "A size that some layers have to themselves differs from that of the platform's model.",
    "PREDICTION_LAYERS_MISMATCH": "Another number of layers that predict further tokens than the platform's model has.",
    "VISION_MISMATCH": "The image tower differs from that of the platform's model.",
    "MAX_POSITIONS_DIFFER": "`max_position_embeddings` differs from that of the platform's model.",
    "DTYPE_DIFFERS": "config.json names another dtype than that of the platform's model.",
    "TOKENIZER_TOO_LARGE": "The tokenizer has ids beyond the embedding of the platform's model.",
    "CHECKPOINT_FILE_MISSING": "A file that every checkpoint for a platform needs is not there.",
    "CHECKPOINT_FILE_ADVISED": "A file that the base models have is not there.",
    "ADAPTER_NOT_MERGED": "The folder holds a LoRA adapter, and no model.",
    "FORMAT_NOT_ACCEPTED": "The folder holds weights in another program's format, such as GGUF, alone.",
    "QUANTIZATION_NOT_ACCEPTED": "The weights are codes of a method that is not decoded, such as AWQ.",
    "RULE_INVALID": "A rule of the catalogue asks for what this version does not know.",
    "DRAFT_VOCABULARY_SIZE": "Draft and target have vocabularies or embeddings of different sizes.",
    "DRAFT_TOKEN_MAP": "An id stands for different tokens in draft and target, or nothing says what it stands for.",
    "DRAFT_SPECIAL_IDS": "Draft and target begin, end or pad sequences with different ids.",
    "DRAFT_POSITIONS": "A side cannot reach any sequence length at which the pair would be deployed.",
    "DRAFT_DTYPE": "Draft and target compute in classes of numbers of different width.",
    "DRAFT_NOT_SMALLER": "The draft has at least as many parameters as its target.",
    "DRAFT_HEAD": "A draft that reads the target's hidden states (EAGLE, Medusa) was made for another target.",
    "DRAFT_DEPLOYMENT": "The catalogue has no sequence length and batch size at which both models can be a pair.",
    "DRAFT_TOKENS": "`--num_speculative_tokens` is a number of tokens that this draft cannot propose.",
    "DRAFT_ADVICE": "Draft and target differ where it does not forbid the pair.",
}
"""What each id means, in a sentence."""

_HEAD = """# Error ids

<!-- Made by `python -m reporting.error_table > docs/errors.md`; a test compares the two. -->

Every failed run ends with a FINAL REPORT that names one id for each violation. The owner says who can remedy it: USAGE,
the person who runs Recast; LIBRARY, the people who write it. A warning does not end the run. Where the place that
reports an id knows better, its suggestion replaces the one below.
"""


def render() -> str:
    """docs/errors.md."""
    values = error_pb2.RecastErrorId.DESCRIPTOR.values
    rows = [_row(value.name) for value in values if value.number]
    head = ["| id | owner | exit code | meaning | suggestion |", "|---|---|---|---|---|"]
    return "\n".join([_HEAD, *head, *rows]) + "\n"


def _row(id: str) -> str:
    shown = Diagnostic(id, "")
    code = "0 (warning)" if shown.warning else str(exit_code_of([shown]))
    cells = (f"`{id}`", shown.owner, code, MEANINGS[id], shown.suggestion)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    console.show(render())
