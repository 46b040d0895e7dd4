"""What `plan --kubernetes` must be told about the cluster: it cannot be known from a plan."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from absl import flags

from reporting.diagnostics import Diagnostic, raise_all

# RFC 1123, as Kubernetes checks names.
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile("(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_BUCKET = re.compile("[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# A registry's name, perhaps with a port, a path, and a tag, a digest or both.
_IMAGE = re.compile(
    r"[a-z0-9][a-zA-Z0-9._-]*(?::[0-9]+(?=/))?(?:/[a-z0-9][a-z0-9._-]*)*(?P<tag>:[\w][\w.-]{0,127})?"
    "(?P<digest>@sha256:[0-9a-f]{64})?"
)
_FLOATING = ":latest"
# Of this machine, or of no use in a Job, where a token would lie open.
_LOCAL = ("plan_file", "plan_only", "progress", "hf_access_token")
_LOCAL_PATHS = ("hf_config_path",)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where a Job runs.

    Attributes:
        image: with a tag or a digest.
        namespace: of all that is made; "" for that of whoever applies it.
        service_account: whose identity the pod has.
        claim: the persistent volume claim that gets the output, and holds the source unless a bucket does.
        create_claim: whether the claim is made as well, as large as the plan says.
        storage_class: of that claim; "" for the cluster's own choice.
        bucket: of Google Cloud Storage, with the source; "" if the claim has it.
        source: the checkpoint, inside of the claim or bucket.
        destination: the output, inside of the claim.
        pull_secret: the name of the secret for the image's registry; "" if it needs none.
        cpus: to ask for; 0 for as many as the plan has threads.
    """

    image: str
    namespace: str
    service_account: str
    claim: str
    create_claim: bool
    storage_class: str
    bucket: str
    source: PurePosixPath
    destination: PurePosixPath
    pull_secret: str
    cpus: int


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    flags.DEFINE_bool(
        "kubernetes",
        False,
        "Print the Job that does the conversion, as YAML for `kubectl apply -f -`, instead of the plan. Its memory, "
        "processors and disk are those of the plan. Needs the flags that say so.",
        flag_values=values,
    )
    text = {
        "image": "With --kubernetes: the image, with a tag other than latest or with a digest. Must be given.",
        "claim": "With --kubernetes: the PersistentVolumeClaim that gets the output, and that holds the source unless "
        "--bucket does. Must be given.",
        "bucket": "With --kubernetes: the Cloud Storage bucket with the source, mounted to be read only by GKE's "
        "Cloud Storage FUSE driver, as --service_account.",
        "job_source": "With --kubernetes: the source's path inside of the claim or bucket. Must be given.",
        "job_destination": "With --kubernetes: the output's path inside of the claim. Must be given.",
        "namespace": "With --kubernetes: the namespace. Default: that of whoever applies the Job.",
        "storage_class": "With --create_claim: its storage class. Default: the cluster's.",
        "image_pull_secret": "With --kubernetes: the Secret with access to the image's registry.",
    }
    for name, help in text.items():
        flags.DEFINE_string(name, "", help, flag_values=values)
    flags.DEFINE_string(
        "service_account",
        "default",
        "With --kubernetes: the ServiceAccount, bound to a cloud identity where buckets are read.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "create_claim",
        False,
        "With --kubernetes and --bucket: print the claim as well, with the plan's disk space.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "job_cpus",
        0,
        "With --kubernetes: processors to ask for. Default: the plan's threads, which are those of this machine.",
        lower_bound=0,
        flag_values=values,
    )


FLAGS = (
    "kubernetes",
    "image",
    "claim",
    "bucket",
    "job_source",
    "job_destination",
    "namespace",
    "storage_class",
    "image_pull_secret",
    "service_account",
    "create_claim",
    "job_cpus",
)
"""The names of all flags of this module."""


def read(values: flags.FlagValues) -> Settings | None:
    """What the flags say; None where no Job is asked for.

    Raises:
        RecastError: with all that is missing or that no cluster would take.
    """
    if not values.kubernetes:
        raise_all([_fault(name, "It has a meaning with --kubernetes only.") for name in FLAGS if values[name].present])
        return None
    raise_all([*_problems(values)])
    return Settings(
        image=values.image,
        namespace=values.namespace,
        service_account=values.service_account,
        claim=values.claim,
        create_claim=values.create_claim,
        storage_class=values.storage_class,
        bucket=values.bucket,
        source=PurePosixPath(values.job_source),
        destination=PurePosixPath(values.job_destination),
        pull_secret=values.image_pull_secret,
        cpus=values.job_cpus,
    )


def passed_on(values: flags.FlagValues, own: tuple[str, ...]) -> list[str]:
    """The flags of the conversion, as the command line gave them.

    Args:
        values: parsed flags.
        own: names of flags that are not the conversion's.

    Raises:
        RecastError: INVALID_FLAG for each that is no UTF-8, as a manifest must be.
    """
    given = {flag.name for flag in values._flags().values() if flag.present}
    said = {name: values[name].serialize() for name in sorted(given - {*own, *FLAGS, *_LOCAL})}
    raise_all(
        [_fault(name, "It is no UTF-8, as a Job's arguments must be.") for name in said if not _is_text(said[name])]
    )
    return [line for lines in said.values() for line in lines.split("\n")]


def _is_text(given: str) -> bool:
    """Whether an argument was UTF-8; of other bytes Python makes surrogates."""
    return given.encode("utf-8", "replace").decode() == given


def _problems(values: flags.FlagValues) -> Iterator[Diagnostic]:
    image = _IMAGE.fullmatch(values.image)
    if not values.image:
        yield _fault("image", "It must be given: the image that the Job runs, as it was pushed.")
    elif image is None:
        yield _fault("image", f"{values.image!r} is no name of an image.")
    elif not image["digest"] and image["tag"] in (None, _FLOATING):
        yield _fault("image", "It needs a tag other than latest, or a digest: each try must run the same image.")
    for name, pattern, wanted in (
        ("namespace", _LABEL, False),
        ("service_account", _SUBDOMAIN, True),
        ("claim", _SUBDOMAIN, True),
        ("storage_class", _SUBDOMAIN, False),
        ("image_pull_secret", _SUBDOMAIN, False),
        ("bucket", _BUCKET, False),
    ):
        value = values[name].value
        if wanted and not value:
            yield _fault(name, "It must be given.")
        elif value and not pattern.fullmatch(value):
            yield _fault(name, f"{value!r} is no name that Kubernetes takes.")
    for name in ("job_source", "job_destination"):
        yield from _no_inner_path(name, str(values[name].value))
    source, destination = values.job_source, values.job_destination
    if source and not values.bucket and PurePosixPath(source) == PurePosixPath(destination):
        yield _fault("job_destination", "It is the source.")
    if values.create_claim and not values.bucket:
        yield _fault("create_claim", "A new claim is empty: only with --bucket can there be a source.")
    if values.storage_class and not values.create_claim:
        yield _fault("storage_class", "It has a meaning with --create_claim only.")
    for name in _LOCAL_PATHS:
        if name in values and values[name].value:
            yield _fault(name, "It is a file of this machine, which the Job does not have.")


def _no_inner_path(name: str, value: str) -> Iterator[Diagnostic]:
    path = PurePosixPath(value)
    if not value:
        yield _fault(name, "It must be given: where the checkpoint lies in the cluster cannot be known here.")
    elif path.is_absolute() or ".." in path.parts or not path.parts or "://" in value or not value.isprintable():
        yield _fault(name, f"{value!r} is no path inside of a volume, such as models/llama.")


def _fault(name: str, reason: str) -> Diagnostic:
    return Diagnostic("INVALID_FLAG", f"--{name}: {reason}", subject=f"--{name}")
