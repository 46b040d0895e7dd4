"""What the serving platform's own tool logs, and what of a log is compared with it."""

from __future__ import annotations

import re
from collections.abc import Collection

SUCCESS = """-----------------------------------------------
[1] STEP: parse_args - Succeeded
-----------------------------------------------


> Errors (None)

-----------------------------------------------
[2] STEP: legalizer - Succeeded
-----------------------------------------------


> Errors (None)

***************************************************
YYYY-MM-DDTHH:MM:SSUTC - byoc_lib - INFO - The process is completed without any errors.
"""

FAILURE = """FINAL REPORT FOR: `prepare-ckpt --model llama3-1b --original_checkpoint_path /data/Llama-3.2-1B \
--output_checkpoint_path /data/outputs/llama3-1b --transformers_version 4.45.1`
***************************************************

-----------------------------------------------
[1] STEP: parse_args - Succeeded
-----------------------------------------------


> Errors (None)

-----------------------------------------------
[2] STEP: validate_transformer - Failed
-----------------------------------------------


> Errors
  Id: ByocErrorId.TRANSFORMERS_VERSION_ERROR
  Responsible: ByocErrorOwner.USAGE
  Reason: The transformers version of your checkpoint (4.52.4) is larger than the maximum supported transformers \
version (4.45.1).
  Suggestion: To fix this, please save your checkpoint with a transformers environment <= 4.45.1. Alternatively, you \
can include the --ignore_transformers_version flag, but this may lead to errors due to transformers version \
compatibility issues.

  Stack Trace:
    Traceback (most recent call last):
    File "/byoc_core/main.runfiles/_main/byoc_core/byoc.py", line 46, in _byoc
    warning = validate_transformer(convert_checkpoint_path,
    (<Version('4.52.4')>, '4.45.1')


***************************************************
2025-08-25T17:49:10UTC - byoc_lib - ERROR - One or more failures have occurred. Do not deploy
"""

RULE = "-" * 47
_STARS = "*" * 51
_STEP = re.compile(r"\[\d+\] STEP: (\w+) - \w+")
_TIME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|YYYY-MM-DDTHH:MM:SS)UTC", re.MULTILINE)
_TRACE = re.compile(r"(?<=  Stack Trace:\n)(    .*\n)+")


def reduced(log: str, steps: Collection[str]) -> str:
    """A log without the other steps, numbers of steps, times and stack traces."""
    lines = log.split("\n")
    starts = [number - 1 for number, line in enumerate(lines) if _STEP.fullmatch(line)]
    stars = len(lines) - 1 - lines[::-1].index(_STARS)
    # A log of a failure has an empty line before its end.
    end = stars - 1 if " - ERROR - " in log else stars
    kept = lines[: starts[0]]
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        step = _STEP.fullmatch(lines[start + 1])
        if step is not None and step[1] in steps:
            kept += [lines[start], re.sub(r"\d+", "#", lines[start + 1], count=1), *lines[start + 2 : stop]]
    return _TRACE.sub("", _TIME.sub("", "\n".join([*kept, *lines[end:]])))
