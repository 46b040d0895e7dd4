import pytest

from converters.engine import maxtext_roots

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
