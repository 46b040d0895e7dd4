"""verify: proves a conversion from both of its sides, or a finished output from its own manifest."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from converters.cli import comparison_flags
from converters.cli.program import Program, main
from reporting.diagnostics import Diagnostic, raise_all
from reporting.report import Report

if TYPE_CHECKING:
    from converters.engine.full_verification import Verification
    from converters.engine.pairing import Checkpoint, Question

LEVELS = ("headers", "sample", "full")


@dataclasses.dataclass(frozen=True)
class Request:
    """What to verify.

    Attributes:
        paths: source and destination; none where a manifest is verified.
        manifest: an output or its manifest.
        level: headers, sample or full.
        question: what was said of the model.
        seed: of the sampled coordinates.
        budget: bytes of buffers.
        progress: how it is shown.
    """

    paths: tuple[Path, ...]
    manifest: Path | None
    level: str
    question: Question
    seed: int
    budget: int
    progress: str


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    comparison_flags.define(values)
    flags.DEFINE_enum(
        "level",
        "sample",
        LEVELS,
        "headers: names, shapes and dtypes. sample: also elements at random coordinates, by second readers of both "
        "sides. full: instead of those every element, made again from the source.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "manifest",
        None,
        "A finished output, or its checkpoint-manifest.json: every file and every tensor is held against the digests "
        "that the manifest lists; takes no SOURCE and DESTINATION.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed", None, "Chooses the coordinates of --level=sample; a new one each time by default.", flag_values=values
    )


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Request:
    """Checks that either two paths or a manifest were given."""
    found = []
    if values.manifest is None and len(positional) != 2:
        found.append(Diagnostic("INVALID_FLAG", "Give SOURCE and DESTINATION, or --manifest.", subject="DESTINATION"))
    if values.manifest is not None and positional:
        reason = f"--manifest needs no source; {positional[0]!r} has no meaning beside it."
        found.append(Diagnostic("INVALID_FLAG", reason, subject=positional[0]))
    if values.manifest is not None:
        given = [name for name in ("level", "seed", "model_name", "hf_config_path") if values[name].present]
        found.extend(
            Diagnostic("INVALID_FLAG", f"--{name} has no meaning beside --manifest.", subject=f"--{name}")
            for name in given
        )
    elif values["seed"].present and values.level != "sample":
        reason = f"--seed chooses the coordinates of --level=sample; --level={values.level} takes no samples."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--seed"))
    found.extend(comparison_flags.problems(values, positional))
    raise_all(found)
    return Request(
        tuple(Path(path) for path in positional),
        Path(values.manifest) if values.manifest is not None else None,
        values.level,
        comparison_flags.question(values),
        values.seed if values.seed is not None else random.SystemRandom().randrange(1 << 32),
        comparison_flags.budget(values),
        values.progress,
    )


def execute(request: Request, report: Report) -> str:
    """Verifies."""
    if request.manifest is not None:
        _verify_manifest(request.manifest, request.budget, request.progress, report)
    else:
        _verify_pair(request, report)
    return ""


def _verify_manifest(path: Path, budget: int, progress: str, report: Report) -> None:
    from converters.engine import manifest_verification as verification
    from converters.engine import processors

    report.destination = str(path)
    threads = processors.workers()
    with report.step("read_manifest") as step:
        listed = verification.read(path)
        step.lines.append(f"{len(listed.files)} files and {len(listed.tensors)} tensors listed, confirmed by DONE")
    with report.step("verify") as step:
        damaged, read, touched = verification.check(listed, threads, budget, progress)
        total = sum(size for size, _ in listed.files.values())
        step.lines.append(f"{total} bytes of files and {read} bytes of tensors compared with their digests")
        if damaged and not touched:
            step.lines.append("no tensor is touched: all of them hold the values that were written")
        raise_all([*touched, *damaged])


def _verify_pair(request: Request, report: Report) -> None:
    from contextlib import ExitStack

    from converters.engine import pairing

    source, destination = request.paths
    report.source, report.destination = str(source), str(destination)
    with ExitStack() as stack:
        with report.step("open_source") as step:
            first = stack.enter_context(pairing.opened_checkpoint(source))
            step.lines.append(_described(first))
        with report.step("open_destination") as step:
            second = stack.enter_context(pairing.opened_checkpoint(destination))
            step.lines.append(_described(second))
        verification = _bind(request, first, second, report)
        _compare(request, verification, report)


def _bind(request: Request, first: Checkpoint, second: Checkpoint, report: Report) -> Verification:
    from converters.engine import binding, full_verification, kept, pairing, processors

    with report.step("validate_config") as step:
        subject = pairing.subject_of(first, second, request.question)
        first, second = pairing.plain(first, second)
    with report.step("bind") as step:
        source, target = pairing.layouts_of(subject, first, second, request.question)
        binding.check_header(source, first.opened.source.tensors)
        sides = pairing.compose(subject, first, second, source, target, initialise=True)
        first, second = pairing.alike(first, second, sides.composition.moves)
        step.lines.extend((*first.opened.decoded, *second.opened.decoded))
        report.model_name = subject.naming.model_name
        report.options.update(pairing.options_of(source, target))
        name = subject.naming.model_name or "(any)"
        step.lines.append(f"family {subject.naming.family}, model {name} ({subject.naming.reason})")
        step.lines.extend(f"{key}: {value}" for key, value in sorted(report.options.items()))
        step.lines.extend(sides.state.lines if sides.state is not None else ())
        step.lines.extend(kept.lines(source, target, first.opened.source.tensors))
    with report.step("headers") as step:
        threads = processors.workers()
        verification = full_verification.prepare(first, second, sides, threads, request.budget)
        raise_all(
            [*full_verification.check_headers(verification), *full_verification.check_config(subject, second, target)]
        )
        step.lines.append(f"{len(verification.plan.arrays)} arrays have the names, shapes and dtypes they must have")
        step.lines.extend(
            f"{count} arrays hold values of {before} rounded to {after}"
            for (before, after), count in sorted(verification.rounded.items())
        )
        step.lines.extend(full_verification.not_compared(verification))
    return verification


def _compare(request: Request, verification: Verification, report: Report) -> None:
    from converters.engine import checks, comparison_plan, full_verification, pairing

    report.figures["tensors"] = len(verification.plan.arrays)
    if request.level == "headers":
        return
    with report.step("verify") as step:
        residue = pairing.residue_of(verification.first)
        if request.level == "sample":
            count, found = full_verification.sample(verification, residue, request.seed)
            report.figures["samples_compared"] = count
            step.lines.append(f"{count} elements compared by coordinate (--seed={request.seed})")
            raise_all(found)
            return
        faults = checks.check(verification.sides.composition, verification.first.opened.source)
        raise_all([d for d in faults if not d.warning])
        step.diagnostics.extend(faults)
        step.lines.extend(comparison_plan.lines(verification.plan))
        count, found = full_verification.compare(verification, residue, request.progress)
        report.figures["bytes_read"] = verification.plan.bytes_in
        step.lines.append(f"every element of {len(verification.plan.arrays)} arrays compared, {count} bytes")
        raise_all([d for d in found if not d.warning])
        step.diagnostics.extend(found)


def _described(checkpoint: Checkpoint) -> str:
    return f"{len(checkpoint.opened.source.tensors)} arrays in {checkpoint.opened.description}"


PROGRAM = Program(
    name="verify",
    summary="Proves that DESTINATION is a right conversion of SOURCE (one, not several in a row), whoever made it: "
    "opens both, finds the layout of each in its own headers, and makes what the destination must hold again from the "
    "source. With --manifest it needs no source: a finished output of Recast is held against the digests of its files "
    "and tensors.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("[source]", "[destination]"),
    supervised=True,
)

if __name__ == "__main__":
    main(PROGRAM)
