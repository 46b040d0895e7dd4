"""oci.pull(): whatever image is named, the answer is a Debian root with Python, made of packages."""

_BUILD = """\
load("{defs}", "oci_image")

oci_image(
    name = "{name}",
    architecture = "amd64",
    os = "linux",
    tars = ["root.tar.gz"],
    visibility = ["//visibility:public"],
)

exports_files(["packages.txt"])
"""

_INPUTS = ["debian_root.sh", "debian_root.py", "debian_root.lock"]

def _base_impl(rctx):
    if "arm64" in rctx.attr.target:
        # Only so that the name exists: nothing of the airgap uses it.
        rctx.file("BUILD.bazel", "")
        return
    cache = rctx.getenv("RECAST_CACHE")
    if not cache:
        fail("RECAST_CACHE is not set: run tools/bazel")
    inputs = [rctx.path(Label("@@//container/base:" + name)) for name in _INPUTS]
    for file in inputs:
        rctx.watch(file)
    result = rctx.execute(["bash", inputs[0], cache], timeout = 3600, quiet = False)
    if result.return_code:
        fail("base image: " + result.stderr)
    folder = result.stdout.strip()
    for name in ("root.tar.gz", "packages.txt"):
        rctx.symlink(folder + "/" + name, name)
    rctx.file("BUILD.bazel", _BUILD.format(name = rctx.attr.target, defs = str(Label("//oci:defs.bzl"))))

_base = repository_rule(
    implementation = _base_impl,
    attrs = {"target": attr.string()},
    environ = ["RECAST_CACHE", "RECAST_BASE_STRICT"],
)

def _oci_impl(mctx):
    for mod in mctx.modules:
        for tag in mod.tags.pull:
            _base(name = tag.name, target = tag.name)
            for platform in tag.platforms:
                name = tag.name + "_" + platform.replace("/", "_")
                _base(name = name, target = name)

oci = module_extension(
    implementation = _oci_impl,
    tag_classes = {"pull": tag_class(attrs = {
        "digest": attr.string(),
        "image": attr.string(),
        "name": attr.string(mandatory = True),
        "platforms": attr.string_list(),
        "registry": attr.string(),
        "repository": attr.string(),
        "tag": attr.string(),
    })},
)
