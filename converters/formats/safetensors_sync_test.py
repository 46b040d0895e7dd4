import os
import threading
from pathlib import Path

import numpy as np
import pytest

from converters.formats import durable, safetensors_sink
from converters.formats.base import Declared, TensorInfo
from converters.formats.safetensors_sink import SafetensorsSink

VALUES = np.arange(6, dtype=np.float32)


def test_bytes_that_were_on_their_way_during_a_sync_are_made_durable_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SafetensorsSink(tmp_path)
    sink.declare([Declared(TensorInfo("a", (6,), "float32"), (6,))])
    sink.sync()
    begun, go_on = threading.Event(), threading.Event()
    pwrite, synced = os.pwrite, list[Path]()

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        begun.set()
        assert go_on.wait(10)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    monkeypatch.setattr(safetensors_sink, "sync_files", lambda paths: synced.extend(paths))
    writer = threading.Thread(target=sink.write, args=("a", ((0, 6),), VALUES))
    writer.start()
    assert begun.wait(10)
    sink.sync()
    go_on.set()
    writer.join()
    synced.clear()
    sink.sync()
    assert synced == [tmp_path / "model.safetensors"]
    assert durable.sync_files is not safetensors_sink.sync_files
