"""The flag that names error ids and owners in reports as the serving platform's own tool does."""

from __future__ import annotations

from absl import flags

from reporting.report import PREFIX

FLAG = "error_prefix"
PREFIXES = (PREFIX, "Byoc")


def define(values: flags.FlagValues) -> None:
    """Adds the flag; the report of the run then has the prefix that it says."""
    flags.DEFINE_enum(
        FLAG,
        PREFIX,
        PREFIXES,
        "What the names of error ids, owners and the logger begin with. Byoc: ByocErrorId, ByocErrorOwner and "
        "byoc_lib, for scripts that read the logs of the platform's own tool.",
        flag_values=values,
    )
