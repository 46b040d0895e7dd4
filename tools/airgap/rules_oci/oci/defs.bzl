"""oci_image and its kin with the attributes of the published rules; container/oci_layout.py does the work."""

def _text_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(out, "\n".join(ctx.attr.lines) + "\n")
    return DefaultInfo(files = depset([out]))

_text = rule(implementation = _text_impl, attrs = {"lines": attr.string_list()})

def _file(name, kind, value):
    """A list or dict becomes a file, as in the published macro; a label stays."""
    if type(value) == "dict":
        value = ["{}={}".format(k, v) for k, v in value.items()]
    if type(value) == "list":
        _text(name = "{}_{}".format(name, kind), lines = value, tags = ["manual"])
        return ":{}_{}".format(name, kind)
    return value

_FILES = ["annotations", "cmd", "created", "entrypoint", "env", "exposed_ports", "labels", "volumes"]
_STRINGS = ["architecture", "os", "user", "variant", "workdir"]
_TOOL = {"_layout": attr.label(default = "@@//container:oci_layout_program", executable = True, cfg = "exec")}

def _image_impl(ctx):
    if bool(ctx.attr.base) == bool(ctx.attr.os and ctx.attr.architecture):
        fail("give either base, or os and architecture")
    out = ctx.actions.declare_directory(ctx.label.name)
    digest = ctx.actions.declare_file(ctx.label.name + ".json.sha256")
    args = ctx.actions.args()
    args.add("image")
    args.add("--output=" + out.path)
    args.add(digest, format = "--digest=%s")
    inputs = [] + ctx.files.tars
    for key in ["base"] + _FILES:
        file = getattr(ctx.file, key)
        if file:
            args.add(file.path, format = "--" + key + "=%s")
            inputs.append(file)
    for key in _STRINGS:
        if getattr(ctx.attr, key):
            args.add(getattr(ctx.attr, key), format = "--" + key + "=%s")
    args.add_all(ctx.files.tars, format_each = "--layer=%s")
    ctx.actions.run(
        executable = ctx.executable._layout,
        arguments = [args],
        inputs = inputs,
        outputs = [out, digest],
        mnemonic = "OCIImage",
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out])), OutputGroupInfo(digest = depset([digest]))]

_image = rule(
    implementation = _image_impl,
    attrs = {k: attr.label(allow_single_file = True) for k in ["base"] + _FILES} |
            {k: attr.string() for k in _STRINGS} |
            {"tars": attr.label_list(allow_files = [".tar", ".tar.gz", ".tgz"])} | _TOOL,
)

def _digest(name, kwargs):
    native.filegroup(
        name = name + ".digest",
        srcs = [name],
        output_group = "digest",
        tags = kwargs.get("tags"),
        visibility = kwargs.get("visibility"),
    )

def oci_image(name, **kwargs):
    for kind in _FILES:
        kwargs[kind] = _file(name, kind, kwargs.get(kind))
    _image(name = name, **kwargs)
    _digest(name, kwargs)

def _index_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    digest = ctx.actions.declare_file(ctx.label.name + ".json.sha256")
    args = ctx.actions.args()
    args.add("index")
    args.add("--output=" + out.path)
    args.add(digest, format = "--digest=%s")
    args.add_all([image.path for image in ctx.files.images])
    ctx.actions.run(
        executable = ctx.executable._layout,
        arguments = [args],
        inputs = ctx.files.images,
        outputs = [out, digest],
        mnemonic = "OCIIndex",
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out])), OutputGroupInfo(digest = depset([digest]))]

_index = rule(
    implementation = _index_impl,
    attrs = {
        "images": attr.label_list(mandatory = True),
        # Of these the airgap can build the machine's own alone, so the index has one image.
        "platforms": attr.label_list(providers = [platform_common.PlatformInfo]),
    } | _TOOL,
)

def oci_image_index(name, **kwargs):
    _index(name = name, **kwargs)
    _digest(name, kwargs)

_LOAD = """\
#!/bin/sh
# loads the image into podman, or docker
for engine in podman docker; do
  if command -v $engine >/dev/null; then exec $engine load --input "$0.runfiles/{tarball}"; fi
done
echo "neither podman nor docker found" >&2; exit 1
"""

def _load_impl(ctx):
    tarball = ctx.actions.declare_file(ctx.label.name + "/tarball.tar")
    ctx.actions.run(
        executable = ctx.executable._layout,
        arguments = ["tarball", ctx.file.image.path, ctx.file.repo_tags.path, tarball.path],
        inputs = [ctx.file.image, ctx.file.repo_tags],
        outputs = [tarball],
        mnemonic = "OCITarball",
    )
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(script, _LOAD.format(tarball = ctx.workspace_name + "/" + tarball.short_path), is_executable = True)
    return [
        # as published: building the target does not make the tarball, running it or asking for the output group does
        DefaultInfo(files = depset([ctx.file.repo_tags]), executable = script, runfiles = ctx.runfiles([tarball])),
        OutputGroupInfo(tarball = depset([tarball])),
    ]

_load = rule(
    implementation = _load_impl,
    attrs = {
        "format": attr.string(default = "docker", values = ["docker"]),
        "image": attr.label(mandatory = True, allow_single_file = True),
        "repo_tags": attr.label(mandatory = True, allow_single_file = [".txt"]),
    } | _TOOL,
    executable = True,
)

def oci_load(name, repo_tags, **kwargs):
    _load(name = name, repo_tags = _file(name, "tags", repo_tags), **kwargs)

_PUSH = """\
#!/bin/sh
# pushes the image: PROGRAM --repository=HOST/NAME [--tag=TAG]...
set -eu
repository= tags=
for argument; do
  case $argument in
    --repository=*) repository=${{argument#*=}} ;;
    --tag=*) tags="$tags ${{argument#*=}}" ;;
    *) echo "unknown argument: $argument" >&2; exit 2 ;;
  esac
done
[ -n "$repository" ] || {{ echo "--repository=HOST/NAME is needed" >&2; exit 2; }}
command -v skopeo >/dev/null || {{ echo "skopeo is needed; install Debian's skopeo" >&2; exit 2; }}
[ -n "$tags" ] || tags=$(cat "$0.runfiles/{tags}")
for tag in $tags; do
  skopeo copy --all ${{SKOPEO_OPTIONS:-}} "oci:$0.runfiles/{image}" "docker://$repository:$tag"
done
"""

def _push_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    paths = {k: ctx.workspace_name + "/" + f.short_path for k, f in {"image": ctx.file.image, "tags": ctx.file.remote_tags}.items()}
    ctx.actions.write(script, _PUSH.format(**paths), is_executable = True)
    return [DefaultInfo(executable = script, runfiles = ctx.runfiles([ctx.file.image, ctx.file.remote_tags]))]

_push = rule(
    implementation = _push_impl,
    attrs = {
        "image": attr.label(mandatory = True, allow_single_file = True),
        "remote_tags": attr.label(mandatory = True, allow_single_file = [".txt"]),
        "repository": attr.string(),
    },
    executable = True,
)

def oci_push(name, remote_tags, **kwargs):
    _push(name = name, remote_tags = _file(name, "tags", remote_tags), **kwargs)
