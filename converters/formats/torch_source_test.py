from __future__ import annotations

import collections
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.formats.torch_source import INDEX_FILE, SINGLE_FILE, TorchElements, TorchSource, is_here
from reporting.diagnostics import RecastError


def _tensors() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(6, 4, generator=generator)
    return {
        "bfloat16": torch.randn(3, 5, generator=generator).to(torch.bfloat16),
        "float16": torch.randn(7, generator=generator).to(torch.float16),
        "float32": base,
        "transposed": base.t(),
        "part of another": base[1:, 1:3],
        "scalar": torch.tensor(2.5),
        "int64": torch.arange(4),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2, generator=generator)),
    }


def _saved(directory: Path) -> Path:
    torch.save(collections.OrderedDict(_tensors()), directory / SINGLE_FILE)
    return directory


def _bits(tensor: Any) -> bytes:
    plain = tensor.detach().contiguous()
    return bytes(plain.view(torch.uint8).numpy().tobytes()) if plain.dim() else bytes(plain.numpy().tobytes())


def test_every_tensor_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    source = TorchSource(_saved(tmp_path))
    loaded = torch.load(tmp_path / SINGLE_FILE, weights_only=True)
    assert list(source.tensors) == list(loaded)
    for name, tensor in loaded.items():
        info = source.tensors[name]
        assert info.shape == tuple(tensor.shape)
        assert f"torch.{info.dtype}" == str(tensor.dtype)
        values = source.read(name, tuple((0, size) for size in info.shape))
        assert np.ascontiguousarray(values).tobytes() == _bits(tensor), name
    source.close()


def test_a_region_is_that_of_the_whole(tmp_path: Path) -> None:
    source = TorchSource(_saved(tmp_path))
    whole = _tensors()["transposed"].numpy()
    assert np.array_equal(source.read("transposed", ((1, 3), (2, 6))), whole[1:3, 2:6])
    source.release("transposed", ((1, 3), (2, 6)))
    assert np.array_equal(source.read("transposed", ((1, 3), (2, 6))), whole[1:3, 2:6])


def test_the_second_reader_finds_the_same_elements(tmp_path: Path) -> None:
    _saved(tmp_path)
    reader = TorchElements(dict.fromkeys(_tensors(), tmp_path / SINGLE_FILE))
    points = np.array([[0, 5], [3, 0], [2, 2]])
    expected = _tensors()["transposed"].numpy()[tuple(points.T)]
    assert np.array_equal(reader.elements("transposed", points), expected)
    assert reader.elements("scalar", np.zeros((1, 0), np.int64)).tolist() == [2.5]


def test_several_files_are_one_checkpoint_by_their_index(tmp_path: Path) -> None:
    names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    for file, name in zip(names, "ab", strict=True):
        torch.save({name: torch.ones(2)}, tmp_path / file)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}), "utf-8")
    source = TorchSource(tmp_path)
    assert {name: info.location for name, info in source.tensors.items()} == dict(zip("ab", names, strict=True))


def test_safetensors_files_go_before(tmp_path: Path) -> None:
    assert is_here(_saved(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not is_here(tmp_path)


def test_an_adapter_does_not_go_before(tmp_path: Path) -> None:
    (_saved(tmp_path) / "adapter_model.safetensors").write_bytes(b"")
    assert is_here(tmp_path)
    assert TorchSource(tmp_path).unused == ("adapter_model.safetensors",)


def test_an_index_that_is_missing_is_named(tmp_path: Path) -> None:
    for number in (1, 2):
        torch.save({f"{number}": torch.ones(2)}, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    with pytest.raises(RecastError) as caught:
        TorchSource(tmp_path)
    (found,) = caught.value.diagnostics
    assert found.suggestion == f"Take {INDEX_FILE} from the original source again."


class _Calls:
    """A pickle that runs something when it is loaded."""

    def __reduce__(self) -> Any:
        return print, ("called",)


def test_a_file_that_became_shorter_after_opening_is_a_changed_source(tmp_path: Path) -> None:
    source = TorchSource(_saved(tmp_path))
    content = (tmp_path / SINGLE_FILE).read_bytes()
    (tmp_path / SINGLE_FILE).write_bytes(content[:-1])
    with pytest.raises(RecastError) as caught:
        source.read("int64", ((0, 4),))
    assert caught.value.diagnostics[0].id == "SOURCE_CHANGED"


def test_a_file_that_became_a_pipe_after_opening_is_a_changed_source_and_not_waited_for(tmp_path: Path) -> None:
    source = TorchSource(_saved(tmp_path))
    (tmp_path / SINGLE_FILE).unlink()
    os.mkfifo(tmp_path / SINGLE_FILE)
    with pytest.raises(RecastError) as caught:
        source.read("int64", ((0, 4),))
    assert caught.value.diagnostics[0].id == "SOURCE_CHANGED"


def test_a_view_outlives_the_source_and_a_closed_source_refuses_to_read(tmp_path: Path) -> None:
    source = TorchSource(_saved(tmp_path))
    values = source.read("int64", ((0, 4),))
    source.close()
    assert values.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="closed"):
        source.read("int64", ((0, 4),))


def _archive(content: object) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
    return held.getvalue()


def _compressed(content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return held.getvalue()


def _without_storages(content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(held, "w") as new:
        for name in old.namelist():
            if "/data/" not in name:
                new.writestr(name, old.read(name))
    return held.getvalue()


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a pickle that calls": (lambda _: _archive({"a": _Calls()}), "builtins.print, which is not called"),
    "no tensors": (lambda _: _archive({"epoch": 3}), "epoch is no tensor"),
    "no dictionary": (lambda _: _archive([1]), "no dictionary of tensors"),
    "cut off": (lambda content: content[: len(content) // 2], "incomplete or damaged"),
    "something else": (lambda _: b"\x80\x02}q\x00.", "not an archive"),
    "compressed": (_compressed, "compressed"),
    "elements lacking": (_without_storages, "are not in it"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_cannot_be_trusted_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said = DAMAGE[kind]
    path = _saved(tmp_path) / SINGLE_FILE
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RecastError) as caught:
        TorchSource(tmp_path)
    (found,) = caught.value.diagnostics
    assert found.id == "HEADER_INVALID"
    assert said in found.reason
    assert capsys.readouterr().out == ""


def test_the_form_of_old_versions_of_torch_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / SINGLE_FILE, _use_new_zipfile_serialization=False)
    with pytest.raises(RecastError, match=r"before PyTorch 1\.6"):
        TorchSource(tmp_path)


def test_files_without_an_index_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(RecastError, match="INDEX_INVALID"):
        TorchSource(tmp_path)


def test_an_index_that_disagrees_with_its_files_is_refused_with_every_tensor(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": dict.fromkeys(("a", "c"), "pytorch_model-00001-of-00001.bin")}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index), "utf-8")
    with pytest.raises(RecastError) as caught:
        TorchSource(tmp_path)
    assert sorted(d.id for d in caught.value.diagnostics) == ["MISSING_INDEXED_TENSOR", "UNINDEXED_TENSOR"]
