"""The mapping files as values: one dataclass per message of mapping.proto, each with its place in the file."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What all parts of a mapping file have.

    Attributes:
        location: "file:line". The file is named as mapping files name it: `hf.textproto`, `common/mlp.textproto`.
    """

    location: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Let(Node):
    """A symbol for an expression."""

    name: str
    value: str
    doc: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Atom(Node):
    """An axis of logical tensors: of a size, a product of others (`is_`), or a spelling of another (`of`)."""

    name: str = ""
    size: str = ""
    is_: str = ""
    of: str = ""
    index: bool = False
    doc: str = ""
    when: str = ""
    may_be_empty: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorNode(Node):
    """A logical tensor."""

    id: str
    axes: str = ""
    when: str = ""
    where: str = ""
    doc: str = ""
    keep_dtype: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group(Node):
    """Tensors that share the start of their ids, their first axes and conditions."""

    id: str = ""
    axes: str = ""
    when: str = ""
    where: str = ""
    tensor: tuple[TensorNode, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tie(Node):
    """Two tensors that are one."""

    tensor: str
    to: str
    when: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Require(Node):
    """What a config must satisfy, and what to say if it does not."""

    that: str
    say: str
    each: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example(Node):
    """A tiny config."""

    name: str
    config: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FamilyNode(Node):
    """family.textproto, or a fragment of one."""

    name: str = ""
    alias_of: str = ""
    include: tuple[str, ...] = ()
    model_type: tuple[str, ...] = ()
    config_root: tuple[str, ...] = ()
    let: tuple[Let, ...] = ()
    atom: tuple[Atom, ...] = ()
    tensor: tuple[TensorNode, ...] = ()
    group: tuple[Group, ...] = ()
    tie: tuple[Tie, ...] = ()
    require: tuple[Require, ...] = ()
    example: tuple[Example, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option(Node):
    """A choice between forms of a layout."""

    name: str
    value: tuple[str, ...] = ()
    default: str = ""
    doc: str = ""
    tried: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Label(Node):
    """Words that names use for the values of an atom."""

    name: str
    atom: str
    value: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class At(Node):
    """Where a part of the layers goes."""

    name: str = ""
    when: str = ""
    map: str = ""
    over: str = ""
    stack: str = ""
    stack_axis: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Node):
    """Times of ^ (half_powers / 2)."""

    of: str
    half_powers: int = 0
    factor_dtype: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Add(Node):
    """Plus a value."""

    value: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Op(Node):
    """One step from the logical value to the stored one."""

    scale: Scale | None = None
    add: Add | None = None
    when: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CodecArray(Node):
    """The name of one of the arrays that store a coded array."""

    role: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Codec(Node):
    """How an array is stored when not as plain numbers."""

    kind: str
    when: str = ""
    block: tuple[str, ...] = ()
    array: tuple[CodecArray, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeerDiffers(Node):
    """Where the format's own tool makes a mistake that is not repeated."""

    reason: str
    when: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Node):
    """Where one tensor, or the tensors of one direct sum, lie."""

    tensor: str = ""
    name: str
    axes: str = ""
    when: str = ""
    optional: str = ""
    copies: str = ""
    copy_rule: str = "EQUAL"
    op: tuple[Op, ...] = ()
    codec: Codec | None = None
    root: str = ""
    peer_dtype: str = ""
    peer_differs: PeerDiffers | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope(Node):
    """Rules stated per layer, and where the layers go. A fragment of one holds rules only."""

    when: str = ""
    include: tuple[str, ...] = ()
    at: tuple[At, ...] = ()
    rule: tuple[Rule, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Absent(Node):
    """Tensors that a format does not keep."""

    tensor: str
    when: str = ""
    where: str = ""
    reason: str = ""
    refill: str = "REFUSE"
    mean_of: str = ""
    must_be_zero: bool = False
    keep: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ignore(Node):
    """Arrays that are no weights."""

    name: str
    reason: str = ""
    part: str = ""
    carry: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mirror(Node):
    """Training state shaped like the weights."""

    name: str
    root: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayoutNode(Node):
    """<format>.textproto."""

    family: str = ""
    format: str = ""
    option: tuple[Option, ...] = ()
    let: tuple[Let, ...] = ()
    atom: tuple[Atom, ...] = ()
    label: tuple[Label, ...] = ()
    root: str = ""
    part: str = ""
    stack_axis: str = ""
    scope: tuple[Scope, ...] = ()
    rule: tuple[Rule, ...] = ()
    absent: tuple[Absent, ...] = ()
    ignore: tuple[Ignore, ...] = ()
    mirror: tuple[Mirror, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FamilySource(Node):
    """A family as its files state it, fragments merged in.

    Attributes:
        name: the family asked for, also where it is an alias.
        folder: the folder with its layouts, that of the family it is an alias of.
        node: the merged content.
        fragments: names of the fragments taken in.
    """

    name: str
    folder: str
    node: FamilyNode
    fragments: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSource(Node):
    """A layout as its files state it, fragments merged into its scopes.

    Attributes:
        family: folder of the layout.
        format: the format's name.
        node: the merged content.
        fragments: names of the fragments taken in.
    """

    family: str
    format: str
    node: LayoutNode
    fragments: tuple[str, ...] = ()
