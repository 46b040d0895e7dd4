"""What a run of prepare-ckpt is asked to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class PrepareRequest:
    """One checkpoint to prepare for a serving platform.

    Attributes:
        model: name of the model in the platform's catalogue.
        source: folder of the checkpoint.
        destination: folder for the output; None where only validation is asked for and none was given.
        transformers_version: the largest version of transformers that may have saved the checkpoint; empty to compare
            nothing.
        ignore_transformers_version: compare nothing, whatever else is said.
        server: where the catalogue comes from: `embedded`, a path or a URL.
        cache_location: where it is kept; None for nowhere.
        dry_run: validate only.
        explain: say of each rule why it holds.
        destination_uri: where the output will be uploaded to, for the resources that deploy it; empty for none.
        legacy_bundle: make a Bundle too, as older platforms take it.
        overwrite: whether a checkpoint at the destination is replaced.
        memory_budget: bytes of buffers that may be held at a time.
        progress: how the run shows how far it is.
    """

    model: str
    source: Path
    destination: Path | None
    transformers_version: str = ""
    ignore_transformers_version: bool = False
    server: str = "embedded"
    cache_location: Path | None = None
    dry_run: bool = False
    explain: bool = False
    destination_uri: str = ""
    legacy_bundle: bool = False
    overwrite: bool = False
    memory_budget: int = 2 << 30
    progress: str = "auto"
