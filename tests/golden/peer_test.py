"""The recorded inputs of MaxText's own tools are made again to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import peer


@pytest.mark.parametrize("name", ["deepseek3", "gemma2", "gpt_oss", "qwen25"])
def test_the_input_is_the_one_that_maxtext_was_given(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    peer.make_input(name, tmp_path / name)
    assert peer.case(name).leaves(scan=True).keys() != peer.case(name).leaves(scan=False).keys()
