"""Opens what a config announces as quantised: recognises the arrays, decodes them, and says what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from converters.formats.base import Source, TensorInfo
from converters.quantized.recognition import Recognition, recognise
from converters.quantized.source import DecodingSource
from reporting.diagnostics import raise_all
from validators import hf_config
from validators.quantization import Scheme

AUTO = "auto"
_FLOATS = ("bfloat16", "float32", "float16", "float64")
_USUAL = "bfloat16"


def recognised(source: Source, scheme: Scheme) -> Recognition:
    """What the arrays of a source mean by the scheme of a checked config.

    Raises:
        RecastError: everything that is wrong with codes, scales and their shapes.
    """

    def sizes_of(name: str) -> tuple[int, ...]:
        length = source.tensors[name].shape[0]
        return tuple(int(size) for size in source.read(name, ((0, length),)))

    found = recognise(scheme, source.tensors, sizes_of)
    raise_all(found.found)
    return found


def decoding(source: Source, config: Mapping[str, Any], found: Recognition, dtype: str) -> DecodingSource:
    """The plain view of a source.

    Args:
        source: the stored arrays.
        config: the model's config.
        found: what they mean.
        dtype: of decoded arrays; `auto` for the one that the config names, else that of most plain arrays.
    """
    chosen = _dtype(config, found.plain) if dtype == AUTO else dtype
    return DecodingSource(source, found.stored, found.plain, chosen)


def lines(scheme: Scheme, source: DecodingSource) -> tuple[str, ...]:
    """What was decoded from what, for the report."""
    if not source.stored:
        return (f"quantization_config announces {scheme.method}, but no array is stored so",)
    ways = Counter(str(one.weights) for one in source.stored.values())
    dtypes = {source.tensors[name].dtype for name in source.stored}
    return tuple(
        f"{count} arrays decoded to {', '.join(sorted(dtypes))} from {way}" for way, count in sorted(ways.items())
    )


def _dtype(config: Mapping[str, Any], plain: Mapping[str, TensorInfo]) -> str:
    if any(config.get(key) for key in ("dtype", "torch_dtype")):
        return hf_config.dtype_of(config)
    dtypes = Counter(info.dtype for info in plain.values() if info.dtype in _FLOATS)
    return dtypes.most_common(1)[0][0] if dtypes else _USUAL
