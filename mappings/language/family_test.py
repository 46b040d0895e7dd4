import pytest

from mappings.language.errors import MappingErrors
from mappings.language.family import Family
from mappings.language.testing import family_of

FAMILY = """name: "toy"
let { name: "L" value: "layers" }
atom { name: "l" size: "L" index: true }
atom { name: "e" size: "hidden" }
atom { name: "p" size: "2" }
atom { name: "r" size: "3" }
atom { name: "d" is: "p r" }
tensor { id: "embed" axes: "e d" }
group {
  id: "a." axes: "l" where: "l > 0" when: "biased ?? true"
  tensor { id: "w" axes: "d e" }
  tensor { id: "b" axes: "d" where: "l % 2 == 0" keep_dtype: true }
}
group { axes: "l" tensor { id: "c" axes: "e" when: "false" } }
tensor { id: "twin" axes: "e d" }
tie { tensor: "twin" to: "embed" when: "tied ?? false" }
require { that: "hidden % 2 == 0" say: "hidden must be even" }
"""


def bind(text: str = FAMILY, **config: object) -> Family:
    return family_of(text, {"layers": 5, "hidden": 4, **config})


def messages(error: pytest.ExceptionInfo[MappingErrors]) -> list[str]:
    return [str(issue) for issue in error.value.issues]


def test_tensors_have_plain_atoms_sizes_and_index_values() -> None:
    family = bind()
    assert list(family.tensors) == ["embed", "twin", "a.w", "a.b"]
    weight = family.tensors["a.w"]
    assert (weight.atoms, weight.index_atoms, weight.shape) == (("p", "r", "e"), ("l",), (2, 3, 4))
    assert weight.present == ((1,), (2,), (3,), (4,))
    assert weight.sizes == {"l": 5, "p": 2, "r": 3, "e": 4}
    assert weight.location == "family.textproto:11"
    assert family.tensors["embed"].present == ((),)


def test_conditions_of_group_and_tensor_add_up() -> None:
    bias = bind().tensors["a.b"]
    assert bias.present == ((2,), (4,))
    assert bias.keep_dtype
    assert "a.w" not in bind(biased=False).tensors


def test_tensors_that_a_config_lacks_are_known() -> None:
    assert bind().known == {"embed", "a.w", "a.b", "c", "twin"}


def test_ties_follow_their_condition() -> None:
    assert bind().ties == {}
    assert bind(tied=True).ties == {"twin": "embed"}


def test_ties_need_equal_axes() -> None:
    with pytest.raises(MappingErrors) as error:
        bind(FAMILY.replace('to: "embed"', 'to: "a.w"'), tied=True)
    assert messages(error) == ["family.textproto:16: tie of 'twin' to 'a.w': axes differ"]


def test_an_empty_tensor_exists_but_is_empty() -> None:
    family = bind(FAMILY.replace('size: "3"', 'size: "0" may_be_empty: true'))
    assert family.tensors["embed"].empty
    assert not bind().tensors["embed"].empty


def test_all_that_a_config_lacks_is_reported_at_once() -> None:
    with pytest.raises(MappingErrors) as error:
        family_of(FAMILY, {})
    keys = {(issue.kind, issue.key, issue.location) for issue in error.value.issues}
    assert keys == {
        ("missing_key", "hidden", "family.textproto:17"),
        ("missing_key", "hidden", "family.textproto:4"),
        ("missing_key", "layers", "family.textproto:2"),
    }


def test_a_requirement_that_does_not_hold_says_its_text() -> None:
    with pytest.raises(MappingErrors) as error:
        bind(hidden=3)
    (issue,) = error.value.issues
    assert (issue.location, issue.text, issue.kind) == (
        "family.textproto:17",
        "hidden must be even (the config has hidden = 3)",
        "require",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('axes: "e d" }\ngroup', 'axes: "e e" }\ngroup', "family.textproto:8: tensor 'embed' names an axis twice"),
        ('axes: "e d" }\ngroup', 'axes: "e p d" }\ngroup', "family.textproto:8: tensor 'embed' names an axis twice"),
        ('axes: "e d" }\ngroup', 'axes: "e q" }\ngroup', "family.textproto:8: no atom named 'q'"),
        ('id: "twin"', 'id: "embed"', "family.textproto:15: tensor 'embed' defined twice"),
        ('name: "r" size', 'name: "p" size', "family.textproto:6: atom 'p' defined twice"),
        ('"l > 0"', '"m > 0"', "family.textproto:9: 'm > 0': no config key, symbol or option named 'm'"),
        ('"hidden % 2 == 0"', '"hidden %"', "family.textproto:17: 'hidden %' ends too early"),
    ],
)
def test_what_is_wrong_in_the_file_is_reported_with_its_line(old: str, new: str, message: str) -> None:
    assert old in FAMILY
    with pytest.raises(MappingErrors) as error:
        bind(FAMILY.replace(old, new))
    assert message in messages(error)
