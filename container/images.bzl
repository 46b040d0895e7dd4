"""The images: what is in each, and what each says of itself."""

_FULL = [":core_layer", ":verify_layer", ":first_party_layer"]
_SLIM = [":core_layer", ":first_party_layer"]

IMAGES = {
    "inference-checkpoint": struct(
        layers = _FULL,
        title = "Recast as the entrypoint of checkpoint Jobs",
        variables = ["RECAST_FLAGS_GO_TO=checkpoint"],
    ),
    "recast": struct(
        layers = _FULL,
        title = "Recast",
        variables = [],
    ),
    "recast-slim": struct(
        layers = _SLIM,
        title = "Recast without torch and transformers",
        variables = [],
    ),
}

def labels(name):
    """The labels of an image, with {x} for what only a release knows.

    Args:
        name: of the image.
    """
    return [
        "org.opencontainers.image.title=" + IMAGES[name].title,
        "org.opencontainers.image.version=" + native.module_version(),
        "org.opencontainers.image.revision={revision}",
        "org.opencontainers.image.source={source}",
        "org.opencontainers.image.created={created}",
        "org.opencontainers.image.licenses=Apache-2.0",
    ]

def variables(name):
    """The environment variables of an image.

    Those of malloc are glibc's, which reads them at the start of a process: without them each large buffer is mapped,
    zeroed and unmapped again.

    Args:
        name: of the image.
    """
    return [
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "HOME=/tmp",
        "LANG=C.UTF-8",
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        "PYTHONPATH=/app/recast:/app/site-packages",
        "PYTHONSAFEPATH=1",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONUNBUFFERED=1",
        "MALLOC_ARENA_MAX=1",
        "MALLOC_MMAP_MAX_=0",
        "MALLOC_TRIM_THRESHOLD_=4294967296",
        "RECAST_DROP_PRIVILEGES=1",
        "RECAST_REVISION={revision}",
    ] + IMAGES[name].variables
