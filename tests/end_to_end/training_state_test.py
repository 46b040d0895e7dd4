"""Training state between stacked and unstacked layers, against plain loops over what Orbax restores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import optax
import pytest

from tests import checkpoints, training_states
from tests.end_to_end.running import converted, recast
from tests.training_states import CONFIG, Tree, differences, restore, stacked

STEP = "7"


def _some(kind: str) -> Callable[[Tree], Tree]:
    """A mask over parameters: True for those whose path holds a word."""

    def mask(params: Tree) -> Tree:
        import jax

        return jax.tree_util.tree_map_with_path(lambda path, _: kind in jax.tree_util.keystr(path), params)

    return mask


def _labels(params: Tree) -> Tree:
    import jax

    return jax.tree.map(lambda matrix: "adam" if matrix else "sgd", _some("kernel")(params))


OPTIMIZERS: Mapping[str, Any] = {
    "adamw": optax.adamw(optax.linear_schedule(1e-3, 0.0, 10)),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3), optax.ema(0.9)),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "plain": optax.sgd(0.1),
    "split": optax.multi_transform({"adam": optax.adam(1e-3), "sgd": optax.sgd(0.1, momentum=0.9)}, _labels),
    "masked": optax.masked(optax.adam(1e-3), _some("mlp")),
    "nested": optax.MultiSteps(optax.adamw(1e-3), 4).gradient_transformation(),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_states.write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training state of adamw with unstacked layers, saved by Orbax v0 as step 7."""
    state = training_states.training_state(OPTIMIZERS["adamw"])
    return training_states.save_v0(state, tmp_path_factory.mktemp("saved") / "ckpt" / STEP, scan=False)


def _restacked(source: Path, out: Path, config: Path, **flags: object) -> Path:
    converted("maxtext-to-maxtext", base_output_directory=out, hf_config_path=config, **{**_path(source), **flags})
    return out


def _path(source: Path) -> dict[str, object]:
    return {"load_full_state_path": source}


def _tree(checkpoint: Path, step: str = STEP) -> Tree:
    return restore(checkpoint / step / "items")


def _notes(out: Path) -> dict[str, str]:
    return {note["tensor"]: note["kind"] for note in json.loads((out / "report.json").read_text())["note"]}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_stacked_as_the_weights_and_come_back_to_the_byte(name: str, config: Path, tmp_path: Path) -> None:
    state = training_states.training_state(OPTIMIZERS[name])
    source = training_states.save_v0(state, tmp_path / "unstacked" / STEP)
    before = _tree(source)
    middle = _restacked(source, tmp_path / "stacked", config, scan_layers=True)
    assert differences(_tree(middle), stacked(before)) == []
    back = _restacked(middle, tmp_path / "back", config, scan_layers=False)
    assert differences(_tree(back), before) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_maxtext_saves_stacked_is_unstacked_and_comes_back(dtype: str, config: Path, tmp_path: Path) -> None:
    state = training_states.training_state(OPTIMIZERS["adamw"], dtype, scan=True)
    source = training_states.save_v1(state, tmp_path / "ckpt" / STEP)
    before = restore(next((source / STEP).glob("*/_METADATA")).parent)
    middle = _restacked(source, tmp_path / "unstacked", config, scan_layers=False)
    assert differences(stacked(_tree(middle)), before) == []
    assert sorted(_tree(middle)["params"]["params"]["decoder"])[:1] == ["decoder_norm"]
    assert "layers_2" in _tree(middle)["opt_state"][0]["nu"]["params"]["decoder"]
    back = _restacked(middle, tmp_path / "back", config, scan_layers=True)
    assert differences(_tree(back), before) == []


def test_the_report_says_what_was_restacked_and_what_was_carried(saved: Path, config: Path, tmp_path: Path) -> None:
    out = _restacked(saved, tmp_path / "out", config, scan_layers=True)
    assert _notes(out) == {
        "opt_state.0.mu.*": "RESTACKED",
        "opt_state.0.nu.*": "RESTACKED",
        "opt_state.0.count": "CARRIED",
        "opt_state.2.count": "CARRIED",
        "step": "CARRIED",
    }
    text = (out / "report.txt").read_text()
    assert "restacked: opt_state.0.mu.*, opt_state.0.nu.*" in text


def test_orbax_restores_the_output_in_four_ways_without_arguments(saved: Path, config: Path, tmp_path: Path) -> None:
    import orbax.checkpoint as ocp
    import orbax.checkpoint.experimental.v1 as ocp_v1

    out = _restacked(saved, tmp_path / "out", config, scan_layers=True)
    expected = stacked(_tree(saved))
    assert differences(_tree(out), expected) == []
    assert differences(ocp.StandardCheckpointer().restore(out / STEP / "items"), expected) == []
    with ocp.CheckpointManager(out) as manager:
        assert manager.latest_step() == int(STEP)
        tree = manager.restore(int(STEP))
        assert manager.metadata(int(STEP)).custom_metadata == {"scan_layers": True}
    assert differences(tree.get("items", tree), expected) == []
    loaded = ocp_v1.load(out / STEP)
    assert differences(loaded.get("items", loaded), expected) == []


def test_optax_goes_on_from_the_restacked_state(saved: Path, config: Path, tmp_path: Path) -> None:
    """The next update on the restacked state is the restacked next update."""
    import jax

    out = _restacked(saved, tmp_path / "out", config, scan_layers=True)

    @jax.jit
    def updated(params: Tree, moments: Tree) -> Tree:
        shape = jax.eval_shape(OPTIMIZERS["adamw"].init, params)
        state = jax.tree.unflatten(jax.tree.structure(shape), jax.tree.leaves(moments))
        gradients = jax.tree.map(lambda leaf: leaf * 0.5 + 1.0, params)
        updates, _ = OPTIMIZERS["adamw"].update(gradients, state, params)
        return optax.apply_updates(params, updates)

    ours, theirs = (training_states.arrays(updated(t["params"], t["opt_state"])) for t in (_tree(out), _tree(saved)))
    assert differences(ours, stacked(theirs)) == []


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("flag", ["load_parameters_path", "load_full_state_path"])
def test_the_training_state_is_stripped(saved: Path, config: Path, scan: bool, flag: str, tmp_path: Path) -> None:
    asked = {"train_state": "strip"} if flag == "load_full_state_path" else {}
    converted(
        "maxtext-to-maxtext",
        base_output_directory=tmp_path / "out",
        hf_config_path=config,
        scan_layers=scan,
        **{flag: saved},
        **asked,
    )
    before = _tree(saved)
    weights = stacked(before["params"]) if scan else before["params"]
    expected = {"params": weights, "step": before["step"], "opt_state": {}}
    assert differences(_tree(tmp_path / "out"), expected) == []
    assert _notes(tmp_path / "out")["opt_state.0.mu.*"] == "DROPPED"


def test_parameters_alone_can_be_asked_to_keep_the_state(saved: Path, config: Path, tmp_path: Path) -> None:
    converted(
        "maxtext-to-maxtext",
        load_parameters_path=saved,
        train_state="keep",
        base_output_directory=tmp_path / "out",
        hf_config_path=config,
    )
    assert differences(_tree(tmp_path / "out"), _tree(saved)) == []


@pytest.mark.parametrize(("scan", "dtype"), [(True, "float32"), (False, "bfloat16")])
def test_a_new_training_state_is_what_optax_starts_with(scan: bool, dtype: str, config: Path, tmp_path: Path) -> None:
    import jax

    params = training_states.training_state(OPTIMIZERS["plain"], dtype)["params"]
    source = training_states.save_v0({"params": params, "opt_state": {}, "step": np.int64(5)}, tmp_path / "src" / "5")
    out = tmp_path / "out"
    _restacked(source, out, config, scan_layers=scan, init_train_state="adam")
    weights = stacked(_tree(source, "5")["params"]) if scan else _tree(source, "5")["params"]
    fresh = {"step": jax.numpy.int32(0), "params": weights, "opt_state": OPTIMIZERS["adamw"].init(weights)}
    expected = _tree(training_states.save_v0(fresh, tmp_path / "expected" / "0"), "0")
    assert differences(_tree(out, "0"), expected) == []
    assert _notes(out)["opt_state.0.mu.*"] == "INITIALISED"


def test_a_new_training_state_replaces_one_of_which_only_the_weights_are_taken(
    saved: Path, config: Path, tmp_path: Path
) -> None:
    converted(
        "maxtext-to-maxtext",
        load_parameters_path=saved,
        init_train_state="adam",
        step=3,
        base_output_directory=tmp_path / "out",
        hf_config_path=config,
    )
    tree = _tree(tmp_path / "out", "3")
    assert differences(tree["params"], _tree(saved)["params"]) == []
    assert int(tree["opt_state"][0]["count"]) == int(tree["step"]) == 0
    record = tmp_path / "out" / "recast" / "conversion.json"
    said = json.loads(record.read_text())
    verified = converted("verify", str(saved), str(tmp_path / "out"), hf_config_path=config)
    assert "initialised: opt_state.0.mu.*, opt_state.0.nu.*, step" in verified.text
    # What the record says decides; where it says nothing, how the new state looks.
    for change, code in ({}, 0), ({"training_state": "keep"}, 3):
        text = json.dumps({key: value for key, value in said.items() if key != "training_state"} | change)
        shutil.copytree(tmp_path / "out", tmp_path / f"said{code}", ignore=shutil.ignore_patterns("*manifest.json"))
        (tmp_path / f"said{code}" / "recast" / "conversion.json").write_text(text)
        assert _verified(saved, tmp_path / f"said{code}", config) == code


def _verified(source: Path, out: Path, config: Path) -> int:
    return recast("verify", str(source), str(out), hf_config_path=config).code


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 2 and 10 of one run."""
    root = tmp_path_factory.mktemp("several") / "ckpt"
    for number, dtype in ((2, "float32"), (10, "bfloat16")):
        state = training_states.training_state(OPTIMIZERS["momentum"], dtype)
        training_states.save_v0(state, root / str(number))
    return root


@pytest.mark.parametrize(("asked", "taken"), [({}, "10"), ({"step": 2}, "2"), ({"step": 10}, "10")])
def test_of_several_steps_the_newest_is_taken_or_the_named_one(
    several: Path, config: Path, asked: dict[str, int], taken: str, tmp_path: Path
) -> None:
    out = _restacked(several, tmp_path / "out", config, **asked)
    assert [path.name for path in out.iterdir() if path.name.isdigit()] == [taken]
    assert differences(_tree(out, taken), _tree(several, taken)) == []


@pytest.mark.parametrize("where", [STEP, f"{STEP}/items"])
def test_a_named_step_can_be_written_under_another_number(
    saved: Path, where: str, config: Path, tmp_path: Path
) -> None:
    out = _restacked(saved / where, tmp_path / "out", config, step=12)
    assert differences(_tree(out, "12"), _tree(saved)) == []
    assert any(note == "RENUMBERED" for note in _notes(out).values())


def test_an_item_without_a_number_takes_that_of_its_step_leaf(saved: Path, config: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / STEP / "items", tmp_path / "bare")
    out = _restacked(tmp_path / "bare", tmp_path / "out", config)
    number = str(int(_tree(saved)["step"]))
    assert differences(_tree(out, number), _tree(saved)) == []


def test_nnx_values_keep_their_wrapping_and_the_rest_of_the_tree_is_carried(config: Path, tmp_path: Path) -> None:
    state = training_states.training_state(OPTIMIZERS["adamw"])
    adam = state["opt_state"][0]
    moments = {"mu": _wrapped(adam.mu), "nu": _wrapped(adam.nu), "count": adam.count}
    keys = np.arange(8, dtype=np.uint32).reshape(4, 2)
    tree = {
        "step": state["step"],
        "params": _wrapped(state["params"]),
        "opt_state": [moments, None, {}],
        "nnx_aux": {"model": {"dropout": {"rngs": {"key": {"value": keys}, "count": {"value": np.uint32(9)}}}}},
    }
    source = training_states.save_v0(tree, tmp_path / "ckpt" / STEP)
    middle = _restacked(source, tmp_path / "stacked", config, scan_layers=True)
    assert differences(_tree(middle), stacked(_tree(source))) == []
    back = _restacked(middle, tmp_path / "back", config, scan_layers=False)
    assert differences(_tree(back), _tree(source)) == []


@pytest.mark.parametrize("root", ["params", "model"])
def test_parameters_below_another_root_stay_there_with_their_state_and_are_renamed_without(
    root: str, config: Path, tmp_path: Path
) -> None:
    state = training_states.training_state(OPTIMIZERS["adamw"])
    inner = training_states.arrays(state["params"]["params"])
    weights = _wrapped(inner) if root == "model" else inner
    optimizer = [{"count": np.int32(1), "mu": weights, "nu": weights}, None]
    source = training_states.save_v0({root: weights, "opt_state": optimizer}, tmp_path / "ckpt" / STEP)
    middle = _restacked(source, tmp_path / "stacked", config, scan_layers=True)
    assert differences(_tree(middle), stacked(_tree(source))) == []
    back = _restacked(middle, tmp_path / "back", config, scan_layers=False)
    assert differences(_tree(back), _tree(source)) == []
    alone = _restacked(source, tmp_path / "alone", config, train_state="strip")
    assert differences(_tree(alone)["params"], {"params": inner}) == []
    assert _notes(alone)[f"{root}.*"] == "RENAMED"
    said = json.loads(converted("inspect", "--json", str(source)).text)
    assert all(len(tensor["chunk"]) == len(tensor["shape"]) for tensor in said["tensors"])
    assert [piece["name"] for piece in said["training_state"]][1:] == ["opt_state.0.mu", "opt_state.0.nu"]
    assert "params.params.decoder.layers_2.mlp.wo.kernel" in converted("inspect", "--all", str(source)).text


def _wrapped(tree: Tree) -> Tree:
    """Every array below a key `value`, as NNX keeps it."""
    if isinstance(tree, Mapping):
        return {key: _wrapped(child) for key, child in tree.items()}
    return {"value": tree}


def test_keys_of_random_numbers_are_keys_again_for_who_restores_keys(config: Path, tmp_path: Path) -> None:
    import jax
    import orbax.checkpoint.experimental.v1 as ocp_v1

    state = training_states.training_state(OPTIMIZERS["momentum"])
    keys = {"dropout": jax.random.key(3, impl="unsafe_rbg"), "split": jax.random.split(jax.random.key(5), 4)}
    source = training_states.save_v0({**state, "rngs": keys}, tmp_path / "ckpt" / STEP)
    middle = _restacked(source, tmp_path / "stacked", config, scan_layers=True)
    back = _restacked(middle, tmp_path / "back", config, scan_layers=False)
    for out in (middle, back):
        numbers = _tree(out)
        assert numbers["rngs"]["dropout"].dtype == np.uint32
        found = ocp_v1.load(out / STEP, {**numbers, "rngs": keys}, checkpointable_name="items")["rngs"]
        for name, key in keys.items():
            assert found[name].dtype == key.dtype
            assert np.array_equal(jax.random.key_data(found[name]), jax.random.key_data(key))


def test_a_dtype_is_for_the_weights_and_never_for_their_moments(saved: Path, config: Path, tmp_path: Path) -> None:
    out = _restacked(saved, tmp_path / "out", config, save_dtype="bfloat16")
    before = _tree(saved)
    assert differences(_tree(out)["opt_state"], before["opt_state"]) == []
    norm = before["params"]["params"]["decoder"]["decoder_norm"]["scale"]
    cast = _tree(out)["params"]["params"]["decoder"]["decoder_norm"]["scale"]
    assert differences(cast, norm.astype(ml_dtypes.bfloat16)) == []


def test_moments_below_a_key_with_a_dot_are_carried_where_nothing_is_restacked(config: Path, tmp_path: Path) -> None:
    state = training_states.training_state(OPTIMIZERS["adamw"])
    tree = {**state, "opt_state": [{"mu.params": state["opt_state"][0].mu["params"]}]}
    source = training_states.save_v0(tree, tmp_path / "ckpt" / STEP)
    out = _restacked(source, tmp_path / "out", config)
    assert _notes(out)["opt_state.0.mu.*"] == "CARRIED"
    assert differences(_tree(out), _tree(source)) == []


def test_factored_moments_are_carried_where_nothing_is_restacked(config: Path, tmp_path: Path) -> None:
    state = training_states.training_state(optax.adafactor(1e-3, min_dim_size_to_factor=4))
    source = training_states.save_v0(state, tmp_path / "ckpt" / STEP)
    out = _restacked(source, tmp_path / "out", config)
    assert differences(_tree(out), _tree(source)) == []


def test_a_training_state_converts_to_hugging_face_and_says_what_is_left_out(
    saved: Path, config: Path, tmp_path: Path
) -> None:
    stacked_state = _restacked(saved, tmp_path / "stacked", config, scan_layers=True)
    outputs = []
    for number, source in enumerate((saved, stacked_state)):
        out = tmp_path / f"hf{number}"
        converted("maxtext-to-hf", load_parameters_path=source, base_output_directory=out, hf_config_path=config)
        outputs.append(checkpoints.read_safetensors(out))
        notes = json.loads((out / "report.json").read_text())["note"]
        assert any(note["kind"] == "DROPPED" and note["tensor"].startswith("opt_state.0.mu") for note in notes)
    assert checkpoints.differing(outputs[1], outputs[0]) == []


def test_moments_of_a_part_of_the_weights_do_not_hinder_the_way_to_hugging_face(config: Path, tmp_path: Path) -> None:
    state = training_states.training_state(OPTIMIZERS["adamw"])
    adam = optax.masked(optax.adam(1e-3), _some("mlp")).init(state["params"]).inner_state
    source = training_states.save_v0({**state, "opt_state": adam}, tmp_path / "ckpt" / STEP)
    assert "mu" in _tree(source)["opt_state"][0]
    converted(
        "maxtext-to-hf", load_parameters_path=source, base_output_directory=tmp_path / "hf", hf_config_path=config
    )


def test_types_that_no_weight_has_hinder_only_who_keeps_the_training_state(
    saved: Path, config: Path, tmp_path: Path
) -> None:
    beside = {"small": np.ones(3, ml_dtypes.float8_e4m3fn), "complex": np.ones((3, 2), np.complex64)}
    source = training_states.save_v0({**_tree(saved), "extra": beside}, tmp_path / "ckpt" / STEP)
    hf, alone = tmp_path / "hf", tmp_path / "alone"
    converted("maxtext-to-hf", load_parameters_path=source, base_output_directory=hf, hf_config_path=config)
    assert set(json.loads((hf / "recast" / "conversion.json").read_text())["source_dtypes"].values()) == {"float32"}
    assert _verified(source, hf, config) == 0
    _restacked(source, alone, config, train_state="strip")
    assert "complex64" in converted("inspect", str(source)).text
    kept = recast(
        "maxtext-to-maxtext",
        load_full_state_path=source,
        base_output_directory=tmp_path / "kept",
        hf_config_path=config,
    )
    assert (kept.code, kept.text.count("RecastErrorId.DTYPE_NOT_SUPPORTED")) == (2, 1)
    assert "extra.complex has elements of type complex64" in kept.text
    assert "--train_state=strip" in kept.text


def test_inspect_lists_a_training_state(saved: Path, config: Path, tmp_path: Path) -> None:
    out = _restacked(saved, tmp_path / "out", config, scan_layers=True)
    for checkpoint in (saved, out):
        text = converted("inspect", str(checkpoint), all=True).text
        assert "opt_state.2.count" in text
        assert "opt_state.0.nu.params.decoder.logits_dense.kernel" in text


def test_every_form_of_storage_holds_a_training_state(saved: Path, config: Path, tmp_path: Path) -> None:
    before = _tree(saved)
    plain = {"checkpoint_storage_use_zarr3": False, "checkpoint_storage_use_ocdbt": False}
    middle = _restacked(saved, tmp_path / "plain", config, scan_layers=True, **plain)
    assert (middle / STEP / "items" / "opt_state.0.mu.params.decoder.layers.mlp.wo.kernel" / ".zarray").exists()
    assert differences(_tree(middle), stacked(before)) == []
    back = _restacked(middle, tmp_path / "back", config, scan_layers=False, compression="zstd:3")
    assert differences(_tree(back), before) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_was_recorded_of_the_original_survives_restacking(dtype: str, tmp_path: Path) -> None:
    model = checkpoints.CONFIGS["grouped"]
    tensors = checkpoints.element_coded_llama(model, dtype, seed=4)
    hf = checkpoints.write_safetensors(tmp_path / "hf", tensors, model)
    first, second, third = tmp_path / "mt1", tmp_path / "mt2", tmp_path / "mt3"
    converted("hf-to-maxtext", hf_model_path=hf, base_output_directory=first, save_dtype=dtype)
    converted("maxtext-to-maxtext", load_parameters_path=first, base_output_directory=second, scan_layers=False)
    converted("maxtext-to-maxtext", load_parameters_path=second, base_output_directory=third, scan_layers=True)
    assert (second / "recast" / "residue.safetensors").exists() == (first / "recast" / "residue.safetensors").exists()
    for number, source in enumerate((second, third)):
        out = tmp_path / f"back{number}"
        converted("maxtext-to-hf", load_parameters_path=source, base_output_directory=out, weight_dtype="auto")
        assert checkpoints.differing(checkpoints.read_safetensors(out), tensors) == []


def test_a_training_checkpoint_is_replaced_when_asked_and_found_complete_when_there(
    several: Path, config: Path, tmp_path: Path
) -> None:
    out = _restacked(several, tmp_path / "out", config, step=2)
    assert "is already complete" in _run(several, out, config, step=2)
    refused = recast(
        "maxtext-to-maxtext", load_full_state_path=several, base_output_directory=out, hf_config_path=config
    )
    assert "RecastErrorId.DESTINATION_EXISTS" in refused.text
    _restacked(several, out, config, overwrite=True)
    assert [path.name for path in out.iterdir() if path.name.isdigit()] == ["10"]


def _run(source: Path, out: Path, config: Path, **flags: object) -> str:
    given = {**_path(source), **flags}
    return converted("maxtext-to-maxtext", base_output_directory=out, hf_config_path=config, **given).text


def test_what_decides_values_may_stay_open_and_is_not_recorded_as_decided(tmp_path: Path) -> None:
    config = training_states.write_config(tmp_path)
    scaled = {**CONFIG, "rope_scaling": checkpoints.CONFIGS["llama3_rope"]["rope_parameters"], "rope_theta": 500000.0}
    config.write_text(json.dumps({**scaled, "max_position_embeddings": 131072}))
    state = training_states.training_state(OPTIMIZERS["momentum"])
    source = training_states.save_v0(state, tmp_path / "ckpt" / STEP)
    out = _restacked(source, tmp_path / "out", config, scan_layers=True)
    assert differences(_tree(out), stacked(_tree(source))) == []
    way_back = recast("maxtext-to-hf", load_parameters_path=out, base_output_directory=tmp_path / "hf")
    assert way_back.code == 2
    assert "RecastErrorId.MODEL_NAME_AMBIGUOUS" in way_back.text
    named = {"model_name": "llama3.1"}
    converted("maxtext-to-hf", load_parameters_path=out, base_output_directory=tmp_path / "hf", **named)


def test_maxtexts_own_spelling_of_settings_is_taken(saved: Path, config: Path, tmp_path: Path) -> None:
    outcome = recast(
        "maxtext-to-maxtext",
        f"load_full_state_path={saved}",
        f"base_output_directory={tmp_path / 'out'}",
        f"hf_config_path={config}",
        "scan_layers=true",
    )
    assert outcome.code == 0, outcome.text
    assert differences(_tree(tmp_path / "out"), stacked(_tree(saved))) == []
