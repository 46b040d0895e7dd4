"""What is proven besides of families whose experts transformers 5 packs: both spellings of the files, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import transformers

from converters.engine import convert
from converters.engine.request import ConversionRequest
from reporting.report import Report
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families import harness
from tests.oracles.arrays import Variant


class PackedExpertsTests:
    """Tests of families whose `hf` layout has the option hf_layout. transformers itself writes the packed files."""

    family: ClassVar[harness.Family]

    def test_packed_experts_give_the_same_leaves_and_come_back_packed(
        self, saved: harness.Saved, tmp_path: Path
    ) -> None:
        packed = self._packed(saved, tmp_path / "packed")
        tensors = checkpoints.read_safetensors(packed)
        assert tensors.keys() != saved.tensors.keys()
        harness.to_maxtext(packed, tmp_path / "mt", Variant())
        expected = self.family.oracle(saved.tensors, saved.config, Variant())
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), tensors) == []

    def test_the_target_has_the_spelling_that_is_asked_for(self, saved: harness.Saved, tmp_path: Path) -> None:
        packed = self._packed(saved, tmp_path / "packed")
        for source, spelling, expected in (
            (saved.directory, "transformers5", checkpoints.read_safetensors(packed)),
            (packed, "hub", saved.tensors),
        ):
            there, back = tmp_path / f"{spelling}-mt", tmp_path / spelling
            harness.to_maxtext(source, there, Variant(scan=False))
            asked = {"hf_layout": spelling}
            request = ConversionRequest(there, back, "maxtext", "hf", "auto", target_options=asked)
            convert.run(request, Report("back"))
            assert checkpoints.differing(checkpoints.read_safetensors(back), expected) == []

    def _packed(self, saved: harness.Saved, directory: Path) -> Path:
        model = getattr(transformers, self.family.auto_class).from_pretrained(saved.directory)
        model.save_pretrained(directory, max_shard_size="20KB", save_original_format=False)
        return directory
