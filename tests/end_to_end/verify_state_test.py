"""`verify` and `diff` between stacked and unstacked training states."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import optax
import pytest
import tensorstore as ts

from tests import checkpoints, training_states
from tests.end_to_end.running import Outcome, converted, recast

STEP = "7"
MOMENT = "opt_state.0.mu.params.decoder.layers_1.mlp.wo.kernel"
STACKED_MOMENT = "opt_state.0.mu.params.decoder.layers.mlp.wo.kernel"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a state that Orbax saved, what it was restacked to, its weights alone, and their config."""
    root = tmp_path_factory.mktemp("state")
    training_states.write_config(root)
    state = training_states.training_state(optax.adamw(optax.linear_schedule(1e-3, 0.0, 10)))
    training_states.save_v0(state, root / "unstacked" / STEP, scan=False)
    for name, flags in (("stacked", {}), ("weights", {"train_state": "strip"})):
        source, target = str(root / "unstacked"), str(root / name)
        converted("convert", source, target, to="maxtext", scan_layers=True, hf_config_path=root, **flags)
    return root


def _run(command: str, made: Path, first: str, second: str, **flags: object) -> Outcome:
    return recast(command, str(made / first), str(made / second), hf_config_path=made, **flags)


def _named(outcome: Outcome) -> set[str]:
    return set(re.findall(r"^  Subject: (.+)$", outcome.text, re.MULTILINE))


@pytest.mark.parametrize(("first", "second"), [("unstacked", "stacked"), ("stacked", "unstacked")])
def test_moments_are_compared_as_the_weights_are(made: Path, first: str, second: str) -> None:
    for level in ("headers", "sample", "full"):
        outcome = _run("verify", made, first, second, level=level)
        assert outcome.code == 0, outcome.text
        assert "not compared" not in outcome.text
    assert _run("diff", made, first, second).code == 0


def test_weights_alone_are_a_right_conversion_of_a_state(made: Path) -> None:
    outcome = _run("verify", made, "unstacked", "weights", level="full")
    assert outcome.code == 0, outcome.text
    outcome = _run("diff", made, "unstacked", "weights")
    assert (outcome.code, _named(outcome)) == (1, {"opt_state"})
    outcome = _run("diff", made, "weights", "unstacked")
    assert (outcome.code, _named(outcome)) == (1, {"opt_state"})


def test_float32_moments_do_not_decide_what_a_float32_source_was_rounded_to(tmp_path: Path) -> None:
    tensors = checkpoints.element_coded_llama(checkpoints.CONFIGS["llama3_rope"], "float32", seed=3)
    checkpoints.write_safetensors(tmp_path / "hf", tensors, checkpoints.CONFIGS["llama3_rope"])
    flags = {"to": "maxtext", "dtype": "bfloat16", "model_name": "llama3.1"}
    converted("convert", str(tmp_path / "hf"), str(tmp_path / "mt"), **flags)
    saved = training_states.with_float32_moments(tmp_path / "mt" / "0" / "items", tmp_path / "state" / "1")
    outcome = recast("verify", str(tmp_path / "hf"), str(saved), level="full", model_name="llama3.1")
    assert outcome.code == 0, outcome.text


def test_a_new_training_state_is_a_right_conversion_of_weights_and_an_old_one_is_not(made: Path) -> None:
    flags = {"to": "maxtext", "scan_layers": False, "init_train_state": "adam", "hf_config_path": made}
    converted("convert", str(made / "weights"), str(made / "new"), **flags)
    assert _run("verify", made, "weights", "new", level="full").code == 0
    outcome = _run("verify", made, "weights", "stacked", level="full")
    assert outcome.code == 3
    assert STACKED_MOMENT in _named(outcome)


def test_a_changed_moment_is_found(made: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(made / "unstacked", tmp_path / "broken")
    items = next(broken.glob("*/*/manifest.ocdbt")).parent
    stored = next(name for name in _stored(items) if name.startswith(MOMENT))
    kvstore = {"driver": "ocdbt", "base": f"file://{items}/", "path": f"{stored}/"}
    spec = {"driver": "zarr3" if _is_zarr3(items, stored) else "zarr", "kvstore": kvstore}
    array = ts.open(spec).result()
    array[2, 3] = 7.0
    outcome = _run("verify", made, "stacked", str(broken), level="full")
    assert (outcome.code, _named(outcome)) == (3, {MOMENT})
    outcome = _run("diff", made, str(broken), "stacked")
    assert (outcome.code, _named(outcome)) == (1, {STACKED_MOMENT})
    assert "the first is [2, 1, 3]: 7.0" in outcome.text


def _stored(items: Path) -> set[str]:
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{items}/"}).result()
    return {key.decode().split("/")[0] for key in store.list().result()}


def _is_zarr3(items: Path, name: str) -> bool:
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{items}/"}).result()
    return f"{name}/zarr.json".encode() in store.list().result()
