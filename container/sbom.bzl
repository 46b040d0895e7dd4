"""sbom: the SPDX document of an image, from its layers."""

def _impl(ctx):
    output = ctx.actions.declare_file(ctx.attr.title + ".spdx.json")
    args = ctx.actions.args()
    args.add_all(ctx.files._locks, format_each = "--lock=%s")
    args.add_all([output, ctx.attr.title, ctx.attr.version, ctx.file._created, ctx.file.base_packages])
    args.add_all(ctx.files.layers)
    ctx.actions.run(
        executable = ctx.executable._sbom,
        arguments = [args],
        inputs = ctx.files.layers + ctx.files._locks + [ctx.file._created, ctx.file.base_packages],
        mnemonic = "Sbom",
        outputs = [output],
    )
    return DefaultInfo(files = depset([output]))

_sbom = rule(
    implementation = _impl,
    attrs = {
        "base_packages": attr.label(mandatory = True, allow_single_file = True),
        "layers": attr.label_list(mandatory = True, allow_files = [".tar.gz"]),
        "title": attr.string(mandatory = True),
        "version": attr.string(mandatory = True),
        "_created": attr.label(default = ":created", allow_single_file = True),
        "_locks": attr.label_list(
            default = [
                "//requirements:core.txt",
                "//requirements:verify.txt",
                "//requirements:verify_cpu.txt",
            ],
            allow_files = [".txt"],
        ),
        "_sbom": attr.label(default = ":sbom_program", executable = True, cfg = "exec"),
    },
)

def sbom(name, **kwargs):
    """Writes TITLE.spdx.json.

    Args:
        name: of the target.
        **kwargs: base_packages, the lock of the base; layers of the image; its title.
    """
    _sbom(name = name, version = native.module_version(), **kwargs)
