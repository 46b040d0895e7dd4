"""The images: what is in each, and what each says of itself."""

_FULL = [":core_layer", ":verify_layer", ":first_party_layer", ":revision_layer"]
_SLIM = [":core_layer", ":first_party_layer", ":revision_layer"]

IMAGES = {
    "inference-checkpoint": struct(
        layers = _FULL,
        options = ["--flags_go_to=checkpoint"],
        title = "Recast as the entrypoint of checkpoint Jobs",
    ),
    "recast": struct(
        layers = _FULL,
        options = [],
        title = "Recast",
    ),
    "recast-slim": struct(
        layers = _SLIM,
        options = [],
        title = "Recast without torch and transformers",
    ),
}

# The environment variables of all images. Those of malloc are glibc's, which reads them at the start of a process: without
# them each large buffer is mapped, zeroed and unmapped again.
VARIABLES = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/app/recast:/app/site-packages",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}

def entrypoint(name):
    """How an image starts; what its caller gives goes behind.

    Args:
        name: of the image.
    """
    return ["/usr/bin/python3.11", "-m", "container.image"] + IMAGES[name].options + ["--"]

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
