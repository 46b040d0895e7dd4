"""What the validation steps look at, read once: files, config, headers, tokenizer, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converters.engine import drivers
from converters.engine.drivers import Opened
from converters.formats.safetensors_header import DTYPES
from reporting.diagnostics import Diagnostic, RecastError
from validators import carried_files, checkpoint_files, hf_config, quantization, tokenizer
from validators.compatibility.facts import CheckpointFacts, TensorInfo, TokenizerFacts

_CODES = {name: code for code, name in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Looked:
    """A checkpoint as far as it can be read.

    Attributes:
        source: its folder.
        files: bytes of each file by name.
        closed: what in its folder this user cannot look at.
        carried: the files that go with the weights.
        config: config.json, None if it cannot be read.
        opened: its weights, None if their headers cannot be read.
        tensors: headers by name, None with `opened`, or if stored codes are not understood.
        tokenizer: what its tokenizer states, None if nothing can be read.
        file_faults: what is wrong with files, headers and index.
        tokenizer_faults: what is wrong with the tokenizer's files.
        no_weights: that there are none, to be told where no rule about files says so.
    """

    source: Path
    files: Mapping[str, int]
    closed: tuple[str, ...]
    carried: tuple[str, ...]
    config: Mapping[str, Any] | None
    opened: Opened | None
    tensors: Mapping[str, TensorInfo] | None
    tokenizer: TokenizerFacts | None
    file_faults: tuple[Diagnostic, ...]
    tokenizer_faults: tuple[Diagnostic, ...]
    no_weights: tuple[Diagnostic, ...] = ()

    @property
    def facts(self) -> CheckpointFacts:
        """The checkpoint as rules look at it; what cannot be read is empty."""
        return CheckpointFacts(self.config or {}, self.tensors or {}, self.files, self.tokenizer)


@contextmanager
def looked_at(source: Path) -> Iterator[Looked]:
    """Reads a checkpoint's folder, config, headers and tokenizer; the weights stay open for the block."""
    misplaced = checkpoint_files.check_place(source)
    if misplaced:
        yield Looked(source, {}, (), (), None, None, None, None, tuple(misplaced), ())
        return
    faults: list[Diagnostic] = []
    no_weights: list[Diagnostic] = []
    found = checkpoint_files.look(source)
    config = _config(source, faults)
    opened = _opened(source, faults, no_weights)
    try:
        tensors = _tensors(opened, config, faults)
        facts, tokenizer_faults = tokenizer.read(source)
        carried = _carried(source, {d.subject for d in tokenizer_faults}, faults)
        told = (tuple(faults), tuple(tokenizer_faults), tuple(no_weights))
        yield Looked(source, found.sizes, found.closed, carried, config, opened, tensors, facts, *told)
    finally:
        if opened is not None:
            opened.source.close()


def _config(source: Path, faults: list[Diagnostic]) -> Mapping[str, Any] | None:
    try:
        return hf_config.load(source)
    except RecastError as error:
        faults.extend(error.diagnostics)
        return None


def _opened(source: Path, faults: list[Diagnostic], no_weights: list[Diagnostic]) -> Opened | None:
    try:
        return drivers.driver_of("hf").open(source)
    except RecastError as error:
        for diagnostic in error.diagnostics:
            (no_weights if diagnostic.id == "SOURCE_NOT_RECOGNIZED" else faults).append(diagnostic)
        return None


def _tensors(
    opened: Opened | None, config: Mapping[str, Any] | None, faults: list[Diagnostic]
) -> Mapping[str, TensorInfo] | None:
    """The headers of weights; of stored codes, those of the weights that they stand for."""
    if opened is None:
        return None
    plain = opened
    if config is not None:
        # What a config announces wrongly is for the rules about configs to say.
        if quantization.check(config):
            return None
        try:
            plain = drivers.decoded(opened, config, "auto")
        except RecastError as error:
            faults.extend(error.diagnostics)
            return None
    return {
        name: TensorInfo(info.shape, _CODES.get(info.dtype, info.dtype)) for name, info in plain.source.tensors.items()
    }


def _carried(source: Path, told: set[str], faults: list[Diagnostic]) -> tuple[str, ...]:
    try:
        return tuple(file.name for file in carried_files.carried_files(source))
    except RecastError as error:
        faults.extend(d for d in error.diagnostics if d.subject not in told and d.subject != hf_config.FILE)
        return ()
