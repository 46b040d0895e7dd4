"""Deterministic layers of an image from a Python program: NAME_third_party, NAME_first_party and so on.

Wheels are merged into /app/site-packages, the repository's own files lie in /app/recast. So paths do not depend on how a
version of rules_python names its repositories, and the image needs no shell and none of the rules' launchers, whose
first line, interpreter and environment differ between versions. The interpreter is the base image's.
"""

load("@rules_python//python:py_info.bzl", "PyInfo")
load("@rules_python//python:py_runtime_info.bzl", "PyRuntimeInfo")

HUBS = {
    "core": "recast_pip",
    "verify": "recast_verify_pip",
}

# Functions for map_each, which give `NAME<TAB>FILE` for a member. The short path of another repository's file is
# "../REPOSITORY/...".
def _of_hub(file, hub):
    repository, wheel, path = file.short_path.partition("/site-packages")
    if not wheel or not repository.startswith("../") or hub not in repository:
        return None
    return "app/site-packages{}\t{}".format(path, file.path)

def _core(file):
    return _of_hub(file, HUBS["core"])

def _verify(file):
    return _of_hub(file, HUBS["verify"])

# The rules' own start-up files, which differ between versions.
_NOT_OURS = ("../", ".venv/", "_stage2_bootstrap.py", ".build_data.txt")

def _first_party(file):
    path = file.short_path
    for part in _NOT_OURS:
        if part in path:
            return None
    _, virtual, generated = path.partition("/_virtual_imports/")
    if virtual:  # of protos: recast_proto/x_pb2.py
        path = generated.partition("/")[2]
        if not path.endswith(".py"):
            return None
    return "app/recast/{}\t{}".format(path, file.path)

_PARTS = {
    "first_party": _first_party,
    "third_party_core": _core,
    "third_party_verify": _verify,
}

def _layer_impl(ctx):
    binary = ctx.attr.binary
    files = binary[DefaultInfo].default_runfiles.files
    tar = ctx.actions.declare_file(ctx.label.name + ".tar.gz")
    args = ctx.actions.args()
    args.use_param_file("@%s", use_always = True)
    args.set_param_file_format("multiline")
    args.add(tar)
    args.add_all(files, map_each = _PARTS[ctx.attr.part], expand_directories = False)

    # Not wanted in the image: the rules' launcher, and a hermetic interpreter (the base has one of the same version).
    args.add(binary[DefaultInfo].files_to_run.executable, format = "-\t%s")
    runtime = binary[PyRuntimeInfo].files if PyRuntimeInfo in binary else None
    if runtime:
        args.add_all(runtime, format_each = "-\t%s")
    ctx.actions.run(
        executable = ctx.executable._layer,
        arguments = [args],
        env = {"PYTHONHASHSEED": "0"},
        inputs = files,
        mnemonic = "PythonLayer",
        outputs = [tar],
        progress_message = "Writing layer %{label}",
    )
    return DefaultInfo(files = depset([tar]))

python_layer = rule(
    implementation = _layer_impl,
    attrs = {
        "binary": attr.label(mandatory = True, providers = [PyInfo]),
        "part": attr.string(mandatory = True, values = _PARTS.keys()),
        "_layer": attr.label(default = ":layer_program", executable = True, cfg = "exec"),
    },
    doc = "One layer of what a Python program needs.",
)
