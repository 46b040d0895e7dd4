"""pip.parse(): one repository per hub, filled by the machine's pip from the hash-locked file."""

_PYTHON = "/usr/bin/python3.11"

def _hub_impl(rctx):
    programs = [rctx.path(Label("@@//tools:" + name)) for name in ("pip_hub.py", "unpack_wheel.py")]
    locks = [rctx.attr.requirements_lock] + rctx.attr.earlier.keys()
    for file in programs + [rctx.path(label) for label in locks]:
        rctx.watch(file)
    special = rctx.path(rctx.attr.requirements_lock)
    special = special.dirname.get_child(special.basename.removesuffix(".txt") + "_cpu.txt")
    rctx.watch(special)
    rctx.file("BUILD.bazel", "")
    result = rctx.execute(
        [_PYTHON, programs[0], rctx.path(rctx.attr.requirements_lock)] +
        ["{}={}".format(hub, rctx.path(lock)) for lock, hub in rctx.attr.earlier.items()],
        timeout = 3600,
        quiet = False,
        environment = {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    if result.return_code:
        fail("pip hub {}: {}".format(rctx.name, result.stderr))

_hub = repository_rule(
    implementation = _hub_impl,
    attrs = {
        "earlier": attr.label_keyed_string_dict(),
        "requirements_lock": attr.label(mandatory = True),
    },
    # pip's own configuration
    environ = ["PIP_CONFIG_FILE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT"],
)

def _pip_impl(mctx):
    for mod in mctx.modules:
        earlier = {}
        for tag in mod.tags.parse:
            _hub(name = tag.hub_name, requirements_lock = tag.requirements_lock, earlier = earlier)
            earlier = earlier | {tag.requirements_lock: tag.hub_name}

pip = module_extension(
    implementation = _pip_impl,
    tag_classes = {"parse": tag_class(attrs = {
        # same names as the published tag; only hub_name and requirements_lock matter here
        "download_only": attr.bool(),
        "hub_name": attr.string(mandatory = True),
        "python_version": attr.string(),
        "requirements_lock": attr.label(mandatory = True),
        "target_platforms": attr.string_list(),
    })},
)
