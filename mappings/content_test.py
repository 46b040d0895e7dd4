from __future__ import annotations

from pathlib import Path

from mappings import content


def test_the_digest_follows_names_and_contents_of_mappings_alone(tmp_path: Path) -> None:
    def digest(folder: str, **files: str) -> str:
        for name, text in files.items():
            (tmp_path / folder / "family").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "family" / name.replace("_", ".")).write_text(text)
        return content.digest(tmp_path / folder)

    first = digest("a", hf_textproto="x", notes_md="1")
    assert first == digest("b", hf_textproto="x", notes_md="2")
    assert len({first, digest("c", hf_textproto="y"), digest("d", maxtext_textproto="x")}) == 3
    assert content.digest().startswith("sha256:")
    assert content.digest() == content.digest()
