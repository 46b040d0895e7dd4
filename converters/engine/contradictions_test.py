from __future__ import annotations

from converters.engine import contradictions
from converters.formats.base import TensorInfo
from mappings.language.arrays import Array


def _array(name: str) -> Array:
    return Array(
        name=name,
        part="",
        shape=(2,),
        tensors=(),
        optional=False,
        keep_dtype=False,
        ops=(),
        peer_dtype="",
        mirror="",
        stack_axes=(),
        location="the rule of a layer",
        codec=None,
    )


_WEIGHTS = {name: _array(name) for name in ("layers.0.w", "layers.1.w")}


def _reasons(unknown: str) -> list[str]:
    header = {name: TensorInfo(name, (2,), "float32") for name in (*_WEIGHTS, unknown)}
    return [found.reason for found in contradictions.find(_WEIGHTS, header, [unknown], [], [])]


def test_more_layers_than_config_json_says_are_one_contradiction() -> None:
    (reason,) = _reasons("layers.2.w")
    assert reason == "The files hold more layers than config.json says (3, not 2), for example layers.2.w."


def test_names_that_are_none_of_layers_are_not_said_to_be_fewer_layers() -> None:
    header = {name: TensorInfo(name, (2,), "float32") for name in ("h.0.w", "h.1.w")}
    found = contradictions.find(_WEIGHTS, header, list(header), list(_WEIGHTS), [])
    reasons = [each.reason for each in found if "layers" in each.reason and "implies" not in each.reason]
    said = "No name in the files is of one of the 2 layers that config.json says; layers.0.w is missing, for example."
    assert reasons == [said]


def test_a_number_of_thousands_of_digits_is_none_of_a_layer() -> None:
    (reason,) = _reasons(f"layers.{'9' * 5000}.w")
    assert reason.startswith("By config.json other layers have tensors of this kind")
