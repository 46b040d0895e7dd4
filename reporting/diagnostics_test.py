import pytest

from recast_proto import error_pb2
from reporting.diagnostics import Diagnostic, exit_code_of


def test_every_id_says_who_can_remedy_it_and_how() -> None:
    for value in error_pb2.RecastErrorId.DESCRIPTOR.values[1:]:
        info: error_pb2.ErrorInfo = value.GetOptions().Extensions[error_pb2.info]  # type: ignore[index]
        assert info.owner in (error_pb2.USAGE, error_pb2.LIBRARY), value.name
        assert info.suggestion.endswith("."), value.name


def test_an_unknown_id_is_a_fault_of_the_program() -> None:
    with pytest.raises(KeyError, match="NO_SUCH_ID"):
        Diagnostic("NO_SUCH_ID", "r")


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        ([], 0),
        (["TENSOR_ALL_ZERO"], 0),
        (["MISSING_SHARD"], 2),
        (["DISK_FULL"], 5),
        (["OUT_OF_MEMORY"], 4),
        (["TERMINATED"], 143),
        (["DISK_FULL", "MISSING_SHARD"], 2),
        (["MISSING_SHARD", "INTERNAL"], 3),
    ],
)
def test_the_worst_failure_gives_the_exit_code(ids: list[str], code: int) -> None:
    assert exit_code_of(Diagnostic(name, "r") for name in ids) == code


@pytest.mark.parametrize(
    ("subject", "field"),
    [("rope_scaling.factor", "factor"), ("hidden_size", "hidden_size"), ("", "There is none.")],
)
def test_the_field_is_the_last_part_of_the_subject_or_else_the_reason(subject: str, field: str) -> None:
    assert Diagnostic("CONFIG_INVALID", "There is none.", subject=subject).field == field
