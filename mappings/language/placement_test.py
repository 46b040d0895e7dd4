import shutil
from pathlib import Path

from mappings.language import lint, loader


def test_a_stacked_digit_that_is_no_index_is_an_issue_at_its_at(tmp_path: Path) -> None:
    root = tmp_path / "mappings"
    shutil.copytree(loader.mappings_root(), root, ignore=shutil.ignore_patterns("language", "*.py", "__pycache__"))
    fragment = root / "common" / "decoder.textproto"
    fragment.write_text(fragment.read_text().replace(" index: true", "", 1))
    said = [str(issue) for issue in lint.lint_family("llama", root)]
    line = (root / "llama" / "maxtext.textproto").read_text().split('stack: "l"')[0].count("\n") + 1
    assert f"maxtext.textproto:{line}: 'l' is stacked, but is no index of tensor 'attn.q'" in said
