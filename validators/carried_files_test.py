"""Tests of the files that travel with the weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reporting.diagnostics import RecastError
from validators import carried_files


def _fill(folder: Path, *names: str, content: str = "{}") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def _refused(source: Path, target: Path) -> dict[str, str]:
    with pytest.raises(RecastError) as caught:
        carried_files.copy_carried(source, target)
    assert {d.id for d in caught.value.diagnostics} == {"CONFIG_INVALID"}
    return {d.subject: d.reason for d in caught.value.diagnostics}


def test_what_a_published_checkpoint_has_beside_its_weights_is_copied(tmp_path: Path) -> None:
    names = [
        "LICENSE",
        "LICENSE.txt",
        "NOTICE",
        "Notice.txt",
        "README.md",
        "THIRD_PARTY_NOTICES.md",
        "USAGE_POLICY",
        "USE_POLICY.md",
        "added_tokens.json",
        "additional_chat_templates/rag.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "qwen.tiktoken",
        "special_tokens_map.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
    ]
    source = _fill(tmp_path / "source", *names)
    copied = carried_files.copy_carried(source, tmp_path / "target")
    assert copied == [(name, 2) for name in names]
    found = sorted(str(p.relative_to(tmp_path / "target")) for p in (tmp_path / "target").rglob("*") if p.is_file())
    assert found == names


@pytest.mark.parametrize(
    "name",
    [
        "modeling_llama.py",
        "tokenizer.py",
        "LICENSE.py",
        "LICENSE.pkl",
        "pytorch_model.bin",
        "training_args.bin",
        "tokenizer.pkl",
        "optimizer.pt",
        "config.json.py",
        "additional_chat_templates/run.py",
        "additional_chat_templates/deep/a.jinja",
        "nested/config.json",
        "nested/qwen.tiktoken",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.model.vx",
        "my-config.json",
        ".gitattributes",
    ],
)
def test_code_pickles_weights_and_strangers_stay_behind(tmp_path: Path, name: str) -> None:
    source = _fill(tmp_path / "source", name)
    assert carried_files.carried_files(source) == ()
    assert carried_files.copy_carried(source, tmp_path / "target") == []


def test_what_transformers_reads_beside_the_weights_is_carried(tmp_path: Path) -> None:
    from transformers import utils

    names = {
        utils.CONFIG_NAME,
        utils.GENERATION_CONFIG_NAME,
        utils.FEATURE_EXTRACTOR_NAME,
        utils.IMAGE_PROCESSOR_NAME,
        utils.VIDEO_PROCESSOR_NAME,
        utils.PROCESSOR_NAME,
        utils.CHAT_TEMPLATE_FILE,
        utils.LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE,
    }
    _fill(tmp_path, *names)
    assert {file.name for file in carried_files.carried_files(tmp_path)} == names


def test_a_folder_of_templates_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _fill(tmp_path / "source", "config.json", "additional_chat_templates/rag.jinja")
    listing = Path.iterdir

    def refusing(path: Path) -> Iterator[Path]:
        if path.name == "additional_chat_templates":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    found = _refused(source, tmp_path / "target")
    assert found == {
        "additional_chat_templates": "additional_chat_templates cannot be carried: this user may not read the folder."
    }


def test_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    _fill(tmp_path, "tokenizer.model", content="abc")
    (entry,) = carried_files.carried_files(tmp_path)
    assert (entry.name, entry.bytes) == ("tokenizer.model", 3)


def test_content_is_copied_byte_for_byte(tmp_path: Path) -> None:
    content = '{"model_max_length": 1000000000000000019884624838656,\r\n "x": "é"}'.encode()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tokenizer_config.json").write_bytes(content)
    carried_files.copy_carried(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "tokenizer_config.json").read_bytes() == content


def test_links_of_the_hub_cache_become_files(tmp_path: Path) -> None:
    _fill(tmp_path / "blobs", "0a1b", content='{"a": 1}')
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/0a1b")
    carried_files.copy_carried(snapshot, tmp_path / "target")
    copied = tmp_path / "target" / "config.json"
    assert not copied.is_symlink()
    assert copied.read_text() == '{"a": 1}'


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").symlink_to("../../blobs/gone")
    assert "link to nothing" in _refused(tmp_path, tmp_path / "target")["tokenizer.model"]


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").symlink_to("/dev/zero")
    assert "no regular file" in _refused(tmp_path, tmp_path / "target")["tokenizer.model"]


def test_a_link_out_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "credentials").write_text("secret")
    source = tmp_path / "model"
    source.mkdir()
    (source / "README.md").symlink_to("../home/credentials")
    assert "leads out of the checkpoint" in _refused(source, tmp_path / "target")["README.md"]


def test_a_config_that_links_out_is_not_to_be_removed(tmp_path: Path) -> None:
    _fill(tmp_path / "other", "config.json")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").symlink_to("../other/config.json")
    with pytest.raises(RecastError) as caught:
        carried_files.carried_files(tmp_path / "model")
    (found,) = caught.value.diagnostics
    assert found.suggestion == "Put the file itself there instead of the link."


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_a_git_lfs_pointer_is_not_carried(name: str, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    source = _fill(tmp_path / "source", name, content=pointer)
    assert "it is a Git LFS pointer, not the file itself" in _refused(source, tmp_path / "target")[name]


def test_a_directory_of_a_files_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").mkdir()
    assert "no regular file" in _refused(tmp_path, tmp_path / "target")["LICENSE"]


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "merges.txt")
    assert "no regular file" in _refused(tmp_path, tmp_path / "target")["merges.txt"]


def test_a_file_of_absurd_size_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.json", "wb") as file:
        file.truncate((256 << 20) + 1)
    assert "268435457 bytes" in _refused(tmp_path, tmp_path / "target")["tokenizer.json"]


def test_templates_behind_a_linked_folder_stay_behind(tmp_path: Path) -> None:
    _fill(tmp_path / "elsewhere", "a.jinja")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "additional_chat_templates").symlink_to("../elsewhere")
    assert carried_files.carried_files(tmp_path / "source") == ()


@pytest.mark.parametrize("content", ["", "{", "{'a': 1}", "[" * 200_000])
def test_json_that_does_not_parse_is_refused(tmp_path: Path, content: str) -> None:
    source = _fill(tmp_path / "source", "tokenizer_config.json", content=content)
    assert list(_refused(source, tmp_path / "target")) == ["tokenizer_config.json"]


def test_json_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes(b'{"\xff": 1}')
    assert list(_refused(tmp_path, tmp_path / "target")) == ["vocab.json"]


def test_all_faults_are_told_at_once_and_nothing_is_copied(tmp_path: Path) -> None:
    source = _fill(tmp_path / "source", "tokenizer.json", "vocab.json", content="{")
    _fill(source, "config.json")
    assert set(_refused(source, tmp_path / "target")) == {"tokenizer.json", "vocab.json"}
    assert not (tmp_path / "target").exists()
