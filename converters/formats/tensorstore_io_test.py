import pytest

from converters.formats.tensorstore_io import message, unreadable, unwritable

FULL = (
    'RESOURCE_EXHAUSTED: Error writing "x/c/1" in OCDBT database at local file "/out/0/items/": Failed writing: '
    '"/out/0/items/d/28c0.__lock": Failed to write 16384 bytes to file 4: No space left on device'
)
ANNOTATIONS = " [os_error_code='28'] [tensorstore_spec='{}'] [source locations='a.cc:1']"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FULL + ANNOTATIONS, "DISK_FULL"),
        ("RESOURCE_EXHAUSTED: quota [os_error_code='122']", "DISK_FULL"),
        ("PERMISSION_DENIED: Failed to open [os_error_code='13']", "DESTINATION_NOT_WRITABLE"),
        ("FAILED_PRECONDITION: Read-only file system [os_error_code='30']", "DESTINATION_NOT_WRITABLE"),
        ('FAILED_PRECONDITION: Error opening "zarr3" driver: Expected "shape" of [2]', "DESTINATION_EXISTS"),
        ("ALREADY_EXISTS: Error opening", "DESTINATION_EXISTS"),
        ("UNKNOWN: Input/output error [os_error_code='5']", "INPUT_OUTPUT"),
        ("INTERNAL: something else", "INPUT_OUTPUT"),
    ],
)
def test_a_failed_write_has_the_id_of_its_cause(text: str, expected: str) -> None:
    (found,) = unwritable("x", ValueError(text)).diagnostics
    assert (found.id, found.subject) == (expected, "x")


def test_a_message_is_what_went_wrong_without_annotations() -> None:
    assert message(ValueError(FULL + ANNOTATIONS)) == FULL
    assert len(message(ValueError("x" * 10_000))) < 1000


def test_an_unreadable_array_is_named() -> None:
    found = unreadable("params.x", ValueError("NOT_FOUND: no such key" + ANNOTATIONS))
    assert (found.id, found.subject, found.reason) == (
        "ORBAX_ARRAY_UNREADABLE",
        "params.x",
        "params.x: NOT_FOUND: no such key",
    )
