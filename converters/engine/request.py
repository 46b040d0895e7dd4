"""What a run is asked to do, independent of how its flags were spelled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mappings import content
from reporting import version

AUTO = "auto"
FP8_PER_TENSOR = "fp8_per_tensor"


@dataclasses.dataclass(frozen=True)
class ConversionRequest:
    """One conversion.

    Attributes:
        source: where the checkpoint lies.
        destination: directory for the output.
        source_format: layout name of the source, `target_format` of the output.
        dtype: dtype of the output's weights, or `auto` for that of each original tensor.
        dtype_flag: name of the flag that says so; empty where none does.
        model_name: published name or layout name; empty to take what the files say.
        source_options: layout options given for the source, `target_options` for the output.
        exactness: `invertible` or `as_requested`.
        require_exact: refuse paths that are neither EXACT nor INVERTIBLE.
        residue: `keep`, `drop` or `refuse`.
        overwrite: whether an existing checkpoint at the destination is replaced.
        config_path: directory or file with the config to write, where the source has none.
        max_shard_bytes: largest safetensors file.
        memory_budget: bytes of buffers that may be held at a time.
        compression: of an Orbax output's chunks: `none` or `zstd:N`.
        use_zarr3: whether an Orbax output's arrays are zarr version 3, else version 2.
        use_ocdbt: whether they lie in one OCDBT database, else in a directory each.
        train_state: between MaxText checkpoints: `keep` or `strip`; empty for every other pair.
        init_train_state: `adam` to give an output the state with which training starts; else empty.
        step: number of the output's step; None to take the source's.
        plan_only: stop after the plan; `plan_file` is where to write it as JSON.
        requantize: `source` to store again as codes what the original stored so; else empty.
        weights_form: FP8_PER_TENSOR to store matrices and experts as float8 codes with a scale for each; else empty.
        tied_head: what becomes of an output head that is the embedding: `untie` to write it out, `tie` to leave it out,
            empty to do as the source does.
        numbered_shards: whether even a single safetensors file is numbered and has an index.
        extra_files: content of files that the output gets beside the checkpoint, by name.
        config_changes: fields that the output's config.json gets in place of the source's.
        progress: how the run shows how far it is: one of reporting.progress.MODES.
    """

    source: Path
    destination: Path
    source_format: str
    target_format: str
    dtype: str
    model_name: str = ""
    source_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exactness: str = "invertible"
    require_exact: bool = False
    residue: str = "keep"
    overwrite: bool = False
    config_path: Path | None = None
    max_shard_bytes: int = 5_000_000_000
    memory_budget: int = 2 << 30
    compression: str = "none"
    use_zarr3: bool = True
    use_ocdbt: bool = True
    train_state: str = ""
    init_train_state: str = ""
    step: int | None = None
    requantize: str = ""
    weights_form: str = ""
    tied_head: str = ""
    numbered_shards: bool = False
    extra_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    progress: str = "auto"
    plan_only: bool = False
    plan_file: Path | None = None
    dtype_flag: str = ""

    def digest(self, fingerprint: str) -> str:
        """What two runs share that would write the same output from a source of this fingerprint."""
        said = dataclasses.asdict(self)
        for name in ("overwrite", "memory_budget", "destination", "progress", "plan_only", "plan_file", "dtype_flag"):
            del said[name]
        said["source"] = str(self.source.resolve())
        said["config_path"] = str(self.config_path.resolve()) if self.config_path else ""
        said["fingerprint"] = fingerprint
        # Another version, or other mappings, may write something else.
        said["made_by"] = [version.VERSION, content.digest()]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
