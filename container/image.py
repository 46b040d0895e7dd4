"""The entrypoint of the images: python -m container.image [--flags_go_to=SUBCOMMAND] -- ARGUMENT...

What stands before `--` belongs to an image and says how it differs from `recast`; what follows is the caller's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from container import entrypoint, ownership


def main(argv: Sequence[str]) -> NoReturn:
    """Runs a subcommand as the owner of the place that it writes to; exits with its code.

    Args:
        argv: the image's arguments, `--`, and the caller's.
    """
    parser = argparse.ArgumentParser(prog="container.image", allow_abbrev=False)
    parser.add_argument("--flags_go_to", default="", help="the subcommand that flags without one are for")
    if "--" not in argv:
        parser.error("-- must stand before the caller's command line")
    boundary = argv.index("--")
    target, words = parser.parse_args(argv[:boundary]).flags_go_to, list(argv[boundary + 1 :])
    if target and _begin_with_a_flag(words):
        if target not in entrypoint.SUBCOMMANDS:
            more = (
                f" It is what this image gives {words[0].partition('=')[0]} to, since no subcommand stands before it."
            )
            sys.exit(entrypoint.unknown(target, more))
        words.insert(0, target)
    ownership.drop(words)
    entrypoint.main(["recast", *words], own_process=True)


def _begin_with_a_flag(words: Sequence[str]) -> bool:
    return bool(words) and words[0].startswith("-") and words[0] not in ("--help", "--version")


if __name__ == "__main__":
    main(sys.argv[1:])
