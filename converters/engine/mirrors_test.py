"""Which parts of a tree are taken for mirrors of the weights, by names alone."""

from converters.engine import mirrors

ROOT = "params.params."
NAMES = ("decoder.layers_0.mlp.kernel", "decoder.layers_1.mlp.kernel", "decoder.norm.scale", "token_embedder.embedding")
WEIGHTS = tuple(ROOT + name for name in NAMES)


def _found(*arrays: str, empty: tuple[str, ...] = (), weights: tuple[str, ...] = WEIGHTS) -> list[mirrors.Mirror]:
    return mirrors.find(weights, ROOT, arrays, empty)


def _below(prefix: str, names: tuple[str, ...] = NAMES) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


def test_moments_are_found_at_any_depth_and_beside_counts() -> None:
    deep = "opt_state.inner_states.a.inner_state.0.mu.params"
    found = _found(*_below("opt_state.0.mu.params"), "opt_state.0.count", "step", *_below(deep))
    assert [mirror.prefix for mirror in found] == ["opt_state.0.mu", deep.removesuffix(".params")]
    assert [len(mirror.arrays) for mirror in found] == [4, 4]
    assert not any(mirror.missing or mirror.masked for mirror in found)


def test_a_weight_of_another_layout_gets_a_name_below_the_same_prefix() -> None:
    (mirror,) = _found(*_below("opt_state.0.nu.params"))
    assert (
        mirror.name_of("params.params.decoder.layers.mlp.kernel") == "opt_state.0.nu.params.decoder.layers.mlp.kernel"
    )


def test_a_mirror_may_leave_out_one_key_or_all_of_the_root_or_none() -> None:
    for prefix, path in (("ema", "ema.params.params"), ("ema", "ema.params"), ("ema", "ema")):
        (mirror,) = _found(*_below(path))
        assert mirror.prefix == prefix
        assert mirror.arrays[WEIGHTS[0]] == f"{path}.{NAMES[0]}"
        assert mirror.name_of(WEIGHTS[2]) == f"{path}.{NAMES[2]}"


def test_what_lacks_some_arrays_names_them() -> None:
    (mirror,) = _found(*_below("opt_state.0.mu.params", NAMES[:1]))
    assert mirror.missing == _below("opt_state.0.mu.params", NAMES[1:])


def test_empty_nodes_stand_for_weights_or_for_all_below_a_path() -> None:
    root = "opt_state.0.mu.params"
    (mirror,) = _found(f"{root}.{NAMES[0]}", f"{root}.{NAMES[1]}", empty=(f"{root}.decoder.norm", f"{root}.{NAMES[3]}"))
    assert mirror.missing == ()
    assert mirror.masked == {WEIGHTS[2]: f"{root}.decoder.norm", WEIGHTS[3]: f"{root}.{NAMES[3]}"}


def test_a_mirror_of_empty_nodes_alone_is_one() -> None:
    (mirror,) = _found(empty=_below("opt_state.1.trace.params"))
    assert (mirror.arrays, mirror.missing, len(mirror.masked)) == ({}, (), 4)


def test_counts_keys_and_empty_states_are_no_mirrors() -> None:
    assert _found("step", "opt_state.0.count", "nnx_aux.model.dropout.key", empty=("opt_state.1", "opt_state")) == []


def test_collections_beside_the_parameters_may_be_left_out_whole_but_not_in_part() -> None:
    bias = ("params.MoeBias.decoder.layers_0.bias", "params.MoeBias.decoder.layers_1.bias")
    weights = (*WEIGHTS, *bias)
    moments = _below("opt_state.0.mu.params")
    (mirror,) = _found(*moments, weights=weights)
    assert mirror.missing == ()
    (mirror,) = _found(*moments, "opt_state.0.mu.MoeBias.decoder.layers_0.bias", weights=weights)
    assert mirror.missing == ("opt_state.0.mu.MoeBias.decoder.layers_1.bias",)


def test_weights_at_the_top_of_the_tree_are_mirrored_too() -> None:
    (mirror,) = mirrors.find(NAMES, "", _below("opt_state.0.mu"), ())
    assert mirror.prefix == "opt_state.0.mu"
    assert mirror.name_of("decoder.layers.mlp.kernel") == "opt_state.0.mu.decoder.layers.mlp.kernel"
