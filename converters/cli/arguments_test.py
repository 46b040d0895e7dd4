import pytest
from absl import flags

from converters.cli import arguments, sizes
from reporting.diagnostics import RecastError


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("model_name", "", "", flag_values=values)
    flags.DEFINE_bool("scan_layers", True, "", flag_values=values)
    flags.DEFINE_enum("save_dtype", "bfloat16", ["bfloat16", "float32"], "", flag_values=values)
    flags.DEFINE_integer("count", 1, "", flag_values=values)
    return values


def _faults(*argv: str, positional: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    with pytest.raises(RecastError) as caught:
        arguments.parse(_values(), ["x", *argv], positional)
    return [(d.subject, d.reason) for d in caught.value.diagnostics]


def test_both_spellings_of_a_flag_are_read() -> None:
    values = _values()
    arguments.parse(values, ["x", "model_name=llama3.1-8b", "--save_dtype=float32", "scan_layers=False"])
    assert (values.model_name, values.save_dtype, values.scan_layers) == ("llama3.1-8b", "float32", False)


def test_shell_booleans_are_read() -> None:
    values = _values()
    arguments.parse(values, ["x", "scan_layers=0"])
    assert values.scan_layers is False


def test_an_unknown_flag_names_the_nearest_one() -> None:
    assert _faults("--modelname=x") == [("--modelname", "There is no flag --modelname. Did you mean --model_name?")]


def test_all_faults_are_reported_at_once() -> None:
    subjects = [subject for subject, _ in _faults("--save_dtype=int3", "count=many", "--nope", "stray")]
    assert sorted(subjects) == ["--count", "--nope", "--save_dtype", "stray"]


def test_a_missing_argument_is_named() -> None:
    assert _faults(positional=("path",)) == [("path", "The argument path is missing.")]


def test_a_value_with_an_equals_sign_stays_whole() -> None:
    values = _values()
    arguments.parse(values, ["x", "model_name=a=b"])
    assert values.model_name == "a=b"


@pytest.mark.parametrize(("written", "size"), [("5GB", 5 * 10**9), ("512MiB", 512 << 20), ("1.5 kb", 1500), ("77", 77)])
def test_sizes_are_read(written: str, size: int) -> None:
    assert sizes.parse(written, "f") == size


@pytest.mark.parametrize("written", ["", "GB", "-5GB", "5 parsecs", "0"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(RecastError):
        sizes.parse(written, "f")
