"""The rooms of the repository and the arrows between them: which room may use which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MAY_USE: Mapping[str, tuple[str, ...]] = {
    "proto": (),
    "mappings": ("proto",),
    "reporting": ("proto",),
    "converters/formats": ("reporting",),
    "validators": ("mappings", "proto", "reporting"),
    "converters/quantized": ("converters/formats", "reporting", "validators"),
    "converters/engine": (
        "converters/formats",
        "converters/quantized",
        "mappings",
        "proto",
        "reporting",
        "validators",
    ),
    "converters": (
        "converters/engine",
        "converters/formats",
        "converters/quantized",
        "mappings",
        "proto",
        "reporting",
        "validators",
    ),
    "container": ("converters", "reporting"),
    "tools": ("mappings", "proto", "reporting"),
    "tests": (
        "container",
        "converters",
        "converters/engine",
        "converters/formats",
        "converters/quantized",
        "mappings",
        "proto",
        "reporting",
        "tools",
        "validators",
    ),
}
"""What a room may use beside itself. A room is a folder with all below it that is not a room of its own."""

DEVELOPMENT = ("tests", "tools")
"""Rooms that are in no image: their modules may use what only developers install."""


def room_of(package: str) -> str | None:
    """The room that a folder lies in."""
    rooms = [room for room in MAY_USE if package == room or package.startswith(f"{room}/")]
    return max(rooms, key=len, default=None)


def forbids(package: str, used: str) -> str:
    """Why a module in one folder may not use one in another, or "" if it may."""
    room, other = room_of(package), room_of(used)
    if room is None or other is None or room == other or other in MAY_USE[room]:
        return ""
    return f"{room} may use {', '.join(MAY_USE[room]) or 'no other room'}, and not {other}"


def visibility(package: str, packages: Iterable[str]) -> tuple[str, ...]:
    """Who may use the targets of a package, as Bazel says it.

    Args:
        package: the folder.
        packages: all folders that are Bazel packages.
    """
    room = room_of(package)
    known = sorted(packages)
    users = [user for user, used in MAY_USE.items() if room in used]
    if room is not None and len([other for other in known if room_of(other) == room]) > 1:
        users.append(room)
    return tuple(spec for user in users for spec in _specifications(user, known))


def _specifications(room: str, packages: Iterable[str]) -> tuple[str, ...]:
    """The packages of a room; one that has rooms inside is named folder by folder."""
    if not any(other.startswith(f"{room}/") for other in MAY_USE):
        return (f"//{room}:__subpackages__",)
    folders = [package for package in packages if package.startswith(f"{room}/") and room_of(package) == room]
    tops = [folder for folder in folders if folder.count("/") == room.count("/") + 1]
    return (f"//{room}:__pkg__", *(f"//{folder}:__subpackages__" for folder in tops))
