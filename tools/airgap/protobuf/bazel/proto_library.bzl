"""proto_library: collects sources under the paths by which they import each other."""

ProtoSources = provider(fields = {
    "direct": "list of the target's own sources",
    "root": "the folder that the own sources' import paths start at, relative to the repository",
    "roots": "depset of such folders as protoc is told them",
    "transitive": "depset of all sources",
})

def _impl(ctx):
    strip = ctx.attr.strip_import_prefix.strip("/")
    root = "{}/_virtual_imports/{}".format(ctx.label.package, ctx.label.name)
    direct = []
    for src in ctx.files.srcs:
        path = src.short_path
        if strip and not path.startswith(strip + "/"):
            fail("{} is not below strip_import_prefix {}".format(path, strip))
        path = path.removeprefix(strip).strip("/")
        prefix = ctx.attr.import_prefix + "/" if ctx.attr.import_prefix else ""
        file = ctx.actions.declare_file("_virtual_imports/{}/{}{}".format(ctx.label.name, prefix, path))
        ctx.actions.symlink(output = file, target_file = src)
        direct.append(file)
    deps = [dep[ProtoSources] for dep in ctx.attr.deps]
    return [
        DefaultInfo(files = depset(direct)),
        ProtoSources(
            direct = direct,
            root = root,
            roots = depset([ctx.bin_dir.path + "/" + root] if direct else [], transitive = [dep.roots for dep in deps]),
            transitive = depset(direct, transitive = [dep.transitive for dep in deps]),
        ),
    ]

proto_library = rule(
    implementation = _impl,
    attrs = {
        "deps": attr.label_list(providers = [ProtoSources]),
        "import_prefix": attr.string(),
        "srcs": attr.label_list(allow_files = [".proto"]),
        "strip_import_prefix": attr.string(),
    },
)
