from reporting import json_report, text
from reporting.diagnostics import Diagnostic, RecastError
from reporting.report import Report, StepFailed

SUCCESS = """FINAL REPORT FOR: `prepare-ckpt --model llama3-1b`
***************************************************

-----------------------------------------------
[1] STEP: parse_args - Succeeded
-----------------------------------------------


> Errors (None)

-----------------------------------------------
[2] STEP: legalizer - Succeeded
-----------------------------------------------


> Errors (None)

***************************************************
2025-08-25T17:49:10UTC - recast_lib - INFO - The process is completed without any errors.
"""

FAILURE = """FINAL REPORT FOR: `hf-to-maxtext --hf_model_path /data/x`
***************************************************

-----------------------------------------------
[1] STEP: parse_args - Succeeded
-----------------------------------------------


> Errors (None)

-----------------------------------------------
[2] STEP: open_source - Failed
-----------------------------------------------


> Errors
  Id: RecastErrorId.MISSING_SHARD
  Responsible: RecastErrorOwner.USAGE
  Reason: The index names a file that is not there.
  Subject: model-00002-of-00002.safetensors
  Suggestion: Download or copy the missing file; the index names it.

  Stack Trace:
    Traceback (most recent call last):
    recast_error


***************************************************
2025-08-25T17:49:10UTC - recast_lib - ERROR - One or more failures have occurred. Do not deploy
"""


def _finished(report: Report) -> Report:
    report.finish(now=1756144150)
    return report


def test_a_success_reads_as_the_serving_platform_prints_it() -> None:
    report = Report("prepare-ckpt --model llama3-1b")
    for name in ("parse_args", "legalizer"):
        with report.step(name):
            report.detail = name
    assert text.render(_finished(report)) == SUCCESS
    assert report.exit_code == 0


def test_a_failure_reads_as_the_serving_platform_prints_it() -> None:
    report = Report("hf-to-maxtext --hf_model_path /data/x")
    with report.step("parse_args"):
        report.detail = ""
    report.add_failure(
        "open_source",
        Diagnostic(
            "MISSING_SHARD",
            "The index names a file that is not there.",
            subject="model-00002-of-00002.safetensors",
            stack=("Traceback (most recent call last):", "  recast_error"),
        ),
    )
    assert text.render(_finished(report)) == FAILURE
    assert report.exit_code == 2


def test_the_prefix_and_logger_can_be_those_of_existing_scrapers() -> None:
    report = Report("x")
    report.add_failure("a", Diagnostic("MISSING_SHARD", "r"))
    report.prefix = "Byoc"
    rendered = text.render(_finished(report))
    assert "  Id: ByocErrorId.MISSING_SHARD\n  Responsible: ByocErrorOwner.USAGE\n" in rendered
    assert rendered.endswith("- byoc_lib - ERROR - One or more failures have occurred. Do not deploy\n")


def test_parts_of_a_step_are_shown_as_one_step() -> None:
    report = Report("x")
    report.parts = {"bind": "legalizer", "convert": "legalizer"}
    for name in ("bind", "convert"):
        with report.step(name) as step:
            step.lines.append(name)
    assert [(step.name, step.lines) for step in report.steps] == [("legalizer", ["bind", "convert"])]


def test_the_lines_of_a_quiet_step_are_shown_by_the_next_one() -> None:
    report = Report("x")
    report.quiet = frozenset(("legalizer",))
    with report.step("legalizer") as step:
        step.lines.append("30 arrays")
    with report.step("verify") as step:
        step.lines.append("read back")
    assert [step.lines for step in report.steps] == [[], ["30 arrays", "read back"]]


def test_a_warning_does_not_fail_the_run() -> None:
    report = Report("x")
    with report.step("convert") as step:
        step.diagnostics.append(Diagnostic("TENSOR_ALL_ZERO", "a holds nothing but zeros.", subject="a"))
    rendered = text.render(_finished(report))
    assert "> Errors (None)\n\n> Warnings\n  Id: RecastErrorId.TENSOR_ALL_ZERO\n" in rendered
    assert report.exit_code == 0


def test_all_violations_of_a_step_are_in_the_report() -> None:
    report = Report("x")
    try:
        with report.step("open_source"):
            raise RecastError([Diagnostic("MISSING_SHARD", "one"), Diagnostic("FILE_TRUNCATED", "two")])
    except StepFailed:
        rendered = text.render(_finished(report))
    assert rendered.count("  Id: ") == 2


def test_an_unforeseen_exception_is_internal_with_its_stack_trace() -> None:
    report = Report("x")
    try:
        with report.step("convert"):
            raise KeyError("k")
    except StepFailed:
        rendered = text.render(_finished(report))
    assert "RecastErrorId.INTERNAL" in rendered
    assert "Stack Trace:\n    Traceback (most recent call last):" in rendered
    assert report.exit_code == 3


def test_the_json_names_ids_and_statuses() -> None:
    report = Report("x")
    report.add_failure("a", Diagnostic("MISSING_SHARD", "r", subject="f"))
    rendered = json_report.render(_finished(report))
    assert '"id": "MISSING_SHARD"' in rendered
    assert '"status": "FAILED"' in rendered
    assert '"exit_code": 2' in rendered
