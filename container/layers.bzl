"""Deterministic layers of an image from a Python program.

Wheels are merged into /app/site-packages, the repository's own files lie in /app/recast. So paths do not depend on how a
version of rules_python names its repositories, and the image needs no shell and none of the rules' launchers, whose
first line, interpreter and environment differ between versions. The interpreter is the base image's.
"""

load("@rules_python//python:py_info.bzl", "PyInfo")
load("@rules_python//python:py_runtime_info.bzl", "PyRuntimeInfo")

# What no run uses: headers and libraries for C++ programs, and torch's own tests.
_UNUSED = [
    "app/site-packages/torch/bin",
    "app/site-packages/torch/include",
    "app/site-packages/torch/share",
    "app/site-packages/torch/test",
]

# The rules' own start-up files, which differ between versions.
_NOT_OURS = ("../", ".venv/", "_stage2_bootstrap.py", ".build_data.txt")

# Functions for map_each, which give `NAME<TAB>FILE` for a member. The short path of another repository's file is
# "../REPOSITORY/...".
def _third_party(file):
    _, wheel, path = file.short_path.partition("/site-packages")
    if not wheel or not file.short_path.startswith("../"):
        return None
    return "app/site-packages{}\t{}".format(path, file.path)

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
    "third_party": _third_party,
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
    args.add_all(_UNUSED, format_each = "!\t%s")

    # Not wanted in the image: the rules' launcher, and a hermetic interpreter (the base has one of the same version).
    args.add(binary[DefaultInfo].files_to_run.executable, format = "-\t%s")
    runtime = binary[PyRuntimeInfo].files if PyRuntimeInfo in binary else None
    if runtime:
        args.add_all(runtime, format_each = "-\t%s")
    if ctx.attr.without:
        args.add_all(
            ctx.attr.without[DefaultInfo].default_runfiles.files,
            format_each = "-\t%s",
            expand_directories = False,
        )
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
        "without": attr.label(providers = [PyInfo], doc = "A program whose files an earlier layer holds."),
        "_layer": attr.label(default = ":layer_program", executable = True, cfg = "exec"),
    },
    doc = "One layer of what a Python program needs.",
)

def _file_layer_impl(ctx):
    tar = ctx.actions.declare_file(ctx.label.name + ".tar.gz")
    args = ctx.actions.args()
    args.use_param_file("@%s", use_always = True)
    args.set_param_file_format("multiline")
    args.add(tar)
    args.add(ctx.file.src, format = ctx.attr.path + "\t%s")
    ctx.actions.run(
        executable = ctx.executable._layer,
        arguments = [args],
        env = {"PYTHONHASHSEED": "0"},
        inputs = [ctx.file.src],
        mnemonic = "FileLayer",
        outputs = [tar],
    )
    return DefaultInfo(files = depset([tar]))

file_layer = rule(
    implementation = _file_layer_impl,
    attrs = {
        "path": attr.string(mandatory = True, doc = "Of the file, in the image."),
        "src": attr.label(mandatory = True, allow_single_file = True),
        "_layer": attr.label(default = ":layer_program", executable = True, cfg = "exec"),
    },
    doc = "One layer of a single file.",
)
