"""py_proto_library: *_pb2.py of a proto_library and of what it depends on, by the repository's own protoc."""

load("@rules_python//python:py_info.bzl", "PyInfo")
load(":proto_library.bzl", "ProtoSources")

_Generated = provider(fields = {
    "imports": "depset of folders for sys.path",
    "sources": "depset of modules",
})

def _aspect_impl(target, ctx):
    protos = target[ProtoSources]
    outs = []
    if protos.direct:
        output = ctx.bin_dir.path + "/" + protos.root
        for src in protos.direct:
            path = src.path.removeprefix(output + "/").removesuffix(".proto")
            outs.append(ctx.actions.declare_file("_virtual_imports/{}/{}_pb2.py".format(target.label.name, path)))
        args = ctx.actions.args()
        args.add_all(protos.roots, format_each = "--proto_path=%s")
        args.add("--python_out=" + output)
        args.add_all(protos.direct)
        ctx.actions.run(
            executable = ctx.executable._protoc,
            arguments = [args],
            inputs = protos.transitive,
            outputs = outs,
            mnemonic = "PyProto",
        )
    deps = [dep[_Generated] for dep in ctx.rule.attr.deps]
    here = [ctx.workspace_name + "/" + protos.root] if outs else []
    return [_Generated(
        imports = depset(here, transitive = [dep.imports for dep in deps]),
        sources = depset(outs, transitive = [dep.sources for dep in deps]),
    )]

_aspect = aspect(
    implementation = _aspect_impl,
    attr_aspects = ["deps"],
    attrs = {"_protoc": attr.label(default = "@@//tools/protoc", executable = True, cfg = "exec")},
)

def _impl(ctx):
    sources = depset(transitive = [dep[_Generated].sources for dep in ctx.attr.deps])
    imports = [dep[_Generated].imports for dep in ctx.attr.deps]
    runtime = ctx.attr._runtime
    return [
        DefaultInfo(
            files = sources,
            default_runfiles = ctx.runfiles(transitive_files = sources).merge(runtime[DefaultInfo].default_runfiles),
        ),
        PyInfo(
            transitive_sources = depset(transitive = [sources, runtime[PyInfo].transitive_sources]),
            imports = depset(transitive = imports + [runtime[PyInfo].imports]),
        ),
    ]

py_proto_library = rule(
    implementation = _impl,
    attrs = {
        "deps": attr.label_list(aspects = [_aspect], providers = [ProtoSources]),
        "_runtime": attr.label(default = "@@//tools/protoc:runtime"),
    },
)
