import pytest
from absl import flags

from converters.cli import arguments, sizes
from reporting.diagnostics import RecastError


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("model_name", "", "", flag_values=values)
    flags.DEFINE_bool("scan_layers", True, "", flag_values=values)
    flags.DEFINE_enum("save_dtype", "bfloat16", ["bfloat16", "float32"], "", flag_values=values)
    flags.DEFINE_integer("count", 1, "", lower_bound=1, flag_values=values)
    flags.DEFINE_float("share", 1.0, "", lower_bound=0.5, upper_bound=2.0, flag_values=values)
    flags.DEFINE_float("any", 1.0, "", flag_values=values)
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


def test_a_home_directory_that_there_is_not_is_no_folder_of_its_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    values = _values()
    flags.DEFINE_string("hf_model_path", "", "", flag_values=values)
    with pytest.raises(RecastError) as caught:
        arguments.parse(values, ["x", "~/out", "--hf_model_path=~/model", "--model_name=~/is_no_path"], ("path",))
    assert [found.subject for found in caught.value.diagnostics] == ["--hf_model_path", "~/out"]
    assert all("this user has no home directory" in found.reason for found in caught.value.diagnostics)


def test_an_unknown_flag_names_the_nearest_one() -> None:
    assert _faults("--modelname=x") == [("--modelname", "There is no flag --modelname. Did you mean --model_name?")]


def test_all_faults_are_reported_at_once() -> None:
    subjects = [subject for subject, _ in _faults("--save_dtype=int3", "count=many", "stray", "--nope")]
    assert sorted(subjects) == ["--count", "--nope", "--save_dtype", "stray"]


def test_a_missing_argument_is_named() -> None:
    assert _faults(positional=("path",)) == [("path", "The argument path is missing.")]


def test_a_value_with_an_equals_sign_stays_whole() -> None:
    values = _values()
    arguments.parse(values, ["x", "model_name=a=b"])
    assert values.model_name == "a=b"


def test_what_follows_an_unknown_flag_is_taken_for_its_value() -> None:
    assert _faults("--nope", "stray") == [("--nope", "There is no flag --nope.")]
    assert _faults("--nope", "-stray") == [("--nope", "There is no flag --nope.")]
    assert _faults("--nope", "c3RyYXk==") == [("--nope", "There is no flag --nope.")]
    # It may be what seems to be missing.
    assert _faults("--nope", "stray", positional=("path",)) == [("--nope", "There is no flag --nope.")]


def test_a_known_flag_after_an_unknown_one_is_read() -> None:
    assert [subject for subject, _ in _faults("--nope", "--count=many")] == ["--nope", "--count"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--scan_layers=maybe", "--scan_layers=maybe is neither true nor false."),
        ("--count=abc", "--count=abc is no whole number."),
        ("--count=1.5", "--count=1.5 is no whole number."),
        ("--count=-1", "--count=-1 is not a positive integer."),
        ("--share=abc", "--share=abc is not a number in the range [0.5, 2.0]."),
        ("--share=3", "--share=3 is not a number in the range [0.5, 2.0]."),
        ("--share=nan", "--share=nan is not a number in the range [0.5, 2.0]."),
        ("--any=inf", "--any=inf is not a number."),
        ("--save_dtype=int3", "--save_dtype=int3 is none of bfloat16, float32."),
        ("--model_name", "--model_name needs a value."),
        ("--noscan_layers=1", "There is no flag --noscan_layers. Did you mean --scan_layers?"),
    ],
)
def test_a_value_that_is_refused_is_named_with_what_the_flag_takes(given: str, reason: str) -> None:
    assert [said for _, said in _faults(given)] == [reason]


@pytest.mark.parametrize("value", ["false", "True"])
def test_the_value_of_a_true_or_false_flag_stands_behind_an_equals_sign(value: str) -> None:
    hint = f"The argument {value!r} has no meaning here. Did you mean --scan_layers={value}?"
    assert _faults("--scan_layers", value) == [(value, hint)]
    assert _faults("--scan_layers", value, positional=("path",)) == [
        (value, hint),
        ("path", "The argument path is missing."),
    ]


def test_a_word_after_a_true_or_false_flag_may_be_a_path() -> None:
    assert arguments.parse(_values(), ["x", "--scan_layers", "0"], ("path",)) == ["0"]
    assert _faults("--scan_layers", "0")[0][1].endswith("Did you mean --scan_layers=0?")


def test_a_command_without_paths_says_what_takes_them() -> None:
    with pytest.raises(RecastError) as caught:
        arguments.parse(_values(), ["x", "a/b"], instead="`y` takes paths")
    (found,) = caught.value.diagnostics
    assert found.reason == "The argument 'a/b' has no meaning here: this command takes flags only; `y` takes paths."


@pytest.mark.parametrize(
    ("written", "size"),
    [("5GB", 5 * 10**9), ("512MiB", 512 << 20), ("1.5 kb", 1500), ("77", 77), ("8388607TiB", 8388607 << 40)],
)
def test_sizes_are_read(written: str, size: int) -> None:
    assert sizes.parse(written, "f") == size


@pytest.mark.parametrize(
    "written",
    ["", "GB", "-5GB", "5 parsecs", "0", "9" * 400, "9" * 5000, "1." + "0" * 5000, "1e3", "9223372036854775808"],
)
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(RecastError):
        sizes.parse(written, "f")
