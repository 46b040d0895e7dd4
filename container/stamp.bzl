"""stamped_lines: a file of lines in which {revision} and the like stand for what a release knows."""

def _impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".txt")
    args = ctx.actions.args()
    args.add(ctx.info_file if ctx.attr.stamped else "-")
    args.add(output)
    args.add_all(ctx.attr.lines)
    ctx.actions.run(
        executable = ctx.executable._stamp,
        arguments = [args],
        inputs = [ctx.info_file] if ctx.attr.stamped else [],
        mnemonic = "StampLines",
        outputs = [output],
    )
    return DefaultInfo(files = depset([output]))

_stamped_lines = rule(
    implementation = _impl,
    attrs = {
        "lines": attr.string_list(),
        "stamped": attr.bool(),
        "_stamp": attr.label(default = ":stamp_program", executable = True, cfg = "exec"),
    },
)

def stamped_lines(name, lines, **kwargs):
    """Writes lines; with --stamp, filled in from the status of the workspace, and else with "unknown".

    Args:
        name: of the target, whose output is NAME.txt.
        lines: text, in which {x} is the value of STABLE_X.
        **kwargs: as for every rule.
    """
    _stamped_lines(
        name = name,
        lines = lines,
        stamped = select({
            ":stamping": True,
            "//conditions:default": False,
        }),
        **kwargs
    )
