from __future__ import annotations

import pytest
from absl import flags

from converters.cli import arguments
from converters.kubernetes import settings
from reporting.diagnostics import RecastError

GIVEN = {
    "image": "registry.example.com:5000/team/recast:0.1.0",
    "claim": "checkpoints",
    "job_source": "llama",
    "job_destination": "out/llama",
}


def read(*more: str, **changed: str) -> settings.Settings | None:
    return settings.read(parsed(*more, **changed))


def parsed(*more: str, **changed: str) -> flags.FlagValues:
    values = flags.FlagValues()
    settings.define(values)
    flags.DEFINE_string("hf_config_path", None, "", flag_values=values)
    flags.DEFINE_string("dtype", "auto", "", flag_values=values, short_name="d")
    flags.DEFINE_string("plan_file", "", "", flag_values=values)
    given = [f"--{name}={value}" for name, value in (GIVEN | changed).items() if value]
    arguments.parse(values, ["plan", "--kubernetes", *given, *more])
    return values


def refused(*more: str, **changed: str) -> dict[str, str]:
    with pytest.raises(RecastError) as caught:
        read(*more, **changed)
    return {found.subject: found.reason for found in caught.value.diagnostics}


def test_all_that_cannot_be_known_is_asked_for_at_once() -> None:
    assert set(refused(**dict.fromkeys(GIVEN, ""))) == {f"--{name}" for name in GIVEN}


@pytest.mark.parametrize("image", ["recast", "a/b:latest", "recast:", "UPPER:1", "a b:1", "-a:1", "a:1@sha256:12"])
def test_an_image_that_may_change_between_tries_is_refused(image: str) -> None:
    assert set(refused(image=image)) == {"--image"}


@pytest.mark.parametrize("image", ["recast:1", f"h:5000/a/b@sha256:{'0' * 64}", f"h/a:latest@sha256:{'0' * 64}"])
def test_images_by_tag_and_by_digest_are_taken(image: str) -> None:
    found = read(image=image)
    assert found is not None
    assert found.image == image


@pytest.mark.parametrize("path", ["/data/llama", "../llama", "a/../../b", ".", "gs://bucket/a", "a\nb"])
def test_paths_that_are_not_inside_of_a_volume_are_refused(path: str) -> None:
    assert set(refused(job_source=path)) == {"--job_source"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("namespace", "a.b"), ("claim", "Upper"), ("service_account", "a_b"), ("bucket", "b"), ("storage_class", "-")],
)
def test_names_that_kubernetes_would_refuse_are_refused(name: str, value: str) -> None:
    assert f"--{name}" in refused(**{name: value})


def test_what_contradicts_itself_is_refused() -> None:
    assert set(refused("--create_claim")) == {"--create_claim"}
    assert set(refused("--storage_class=fast")) == {"--storage_class"}
    assert set(refused(job_destination="llama/.")) == {"--job_destination"}
    assert read("--bucket=models", "--create_claim", "--storage_class=fast", job_destination="llama") is not None


def test_a_file_of_this_machine_is_refused() -> None:
    assert set(refused("--hf_config_path=config.json")) == {"--hf_config_path"}


def test_without_kubernetes_its_flags_have_no_meaning() -> None:
    values = parsed()
    values["kubernetes"].parse("false")
    with pytest.raises(RecastError) as caught:
        settings.read(values)
    assert "--image" in {found.subject for found in caught.value.diagnostics}


def test_flags_of_the_conversion_are_passed_on_once_and_others_are_not() -> None:
    values = parsed("--dtype=bfloat16", "--plan_file=x")
    assert settings.passed_on(values, ("own",)) == ["--dtype=bfloat16"]


def test_flags_that_no_manifest_can_hold_are_refused() -> None:
    with pytest.raises(RecastError) as caught:
        settings.passed_on(parsed("--dtype=b\udcff"), ("own",))
    (found,) = caught.value.diagnostics
    assert (found.id, found.reason) == ("INVALID_FLAG", "--dtype: It is no UTF-8, as a Job's arguments must be.")
