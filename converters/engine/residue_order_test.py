import itertools
from pathlib import Path

import numpy as np

from converters.engine import residue


def _part(array: str, start: int) -> residue.Part:
    bits = np.array([start], np.uint16)
    index = np.array([start], np.int64)
    return residue.Part(array, (4,), ((start, start + 1),), "bfloat16", "bfloat16", index, bits, bits)


def test_the_file_does_not_depend_on_which_thread_was_first(tmp_path: Path) -> None:
    parts = [_part("b", 2), _part("a", 3), _part("a", 0)]
    found = set()
    for number, order in enumerate(itertools.permutations(parts)):
        journal = residue.Journal(tmp_path / f"journal.{number}")
        for part in order:
            journal.append(part)
        assert journal.join(tmp_path / f"file.{number}") == len(parts)
        found.add((tmp_path / f"file.{number}").read_bytes())
    assert len(found) == 1
