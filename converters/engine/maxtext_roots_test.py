import pytest

from converters.engine import maxtext_roots
from converters.formats.orbax_metadata import Leaf

KERNEL = "decoder.layers.mlp.wi_0.kernel"


@pytest.mark.parametrize("root", ["", "base.", "params.", "model."])
def test_parameters_of_every_tree_get_their_usual_names(root: str) -> None:
    names = [f"{root}{KERNEL}", f"{root}token_embedder.embedding", "opt_state.0.count"]
    assert maxtext_roots.usual_names(names) == {
        f"{root}{KERNEL}": f"params.params.{KERNEL}",
        f"{root}token_embedder.embedding": "params.params.token_embedder.embedding",
    }


@pytest.mark.parametrize("names", [[f"params.params.{KERNEL}", "step"], ["a.b"], []])
def test_other_trees_stay_as_they_are(names: list[str]) -> None:
    assert maxtext_roots.usual_names(names) == {}


def _leaves(*keys: str) -> dict[str, Leaf]:
    leaf = Leaf(keys, (2,) * len(keys), "np.ndarray")
    name = ".".join(key for key in keys if key != "value")
    return dict(maxtext_roots.usual_leaves({name: leaf}, maxtext_roots.usual_names([name])))


@pytest.mark.parametrize("root", [(), ("base",), ("params",), ("model",)])
def test_the_own_root_of_a_tree_is_what_stands_before_its_parameters(root: tuple[str, ...]) -> None:
    leaves = _leaves(*root, *KERNEL.split("."), "value")
    assert list(leaves) == [f"params.params.{KERNEL}"]
    found = maxtext_roots.own_root(leaves)
    assert found == tuple((key, 2) for key in root)
    assert maxtext_roots.below(leaves[f"params.params.{KERNEL}"], found).keys == (*KERNEL.split("."), "value")


@pytest.mark.parametrize("keys", [("params", "params", *KERNEL.split(".")), ("params.decoder", "layers", "kernel")])
def test_the_usual_tree_and_one_whose_root_is_part_of_a_key_have_no_own_root(keys: tuple[str, ...]) -> None:
    leaves = _leaves(*keys)
    assert maxtext_roots.own_root(leaves) is None
    assert all(leaf.name == name for name, leaf in leaves.items())
