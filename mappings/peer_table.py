"""The families and sizes that MaxText's guide to checkpoint conversion lists, in its words, and what they mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row of that table.

    Attributes:
        family: as the table writes it.
        sizes: the published name that stands behind each size, by the size as the table writes it.
        remark: what a reader must know of the row.
    """

    family: str
    sizes: Mapping[str, str]
    remark: str = ""


ROWS: tuple[Row, ...] = (
    Row("Gemma2", {"2B": "gemma2-2b", "9B": "gemma2-9b", "27B": "gemma2-27b"}),
    Row("Gemma3 (Multimodal)", {"4B": "gemma3-4b", "12B": "gemma3-12b", "27B": "gemma3-27b"}),
    Row(
        "Llama3.1",
        {"8B": "llama3.1-8b", "70B": "llama3.1-70b", "450B": "llama3.1-405b"},
        "450B is that table's word for the published 405B.",
    ),
    Row("Qwen2.5", {"7B": "qwen2.5-7b", "14B": "qwen2.5-14b"}),
    Row(
        "Qwen3",
        {"0.6B": "qwen3-0.6b", "4B": "qwen3-4b", "8B": "qwen3-8b", "14B": "qwen3-14b", "32B": "qwen3-32b"},
    ),
    Row("Qwen3 MoE", {"30B": "qwen3-30b-a3b", "235B": "qwen3-235b-a22b", "480B": "qwen3-480b-a35b"}),
    Row("Mixtral", {"8x7B": "mixtral-8x7b", "8x22B": "mixtral-8x22b"}),
    Row("GPT-OSS", {"20B": "gpt-oss-20b", "120B": "gpt-oss-120b"}),
    Row("DeepSeek2", {"16B": "deepseek2-16b"}),
    Row("DeepSeek3", {"671B": "deepseek3-671b"}),
    Row("DeepSeek3.2", {"671B": "deepseek3.2-671b"}, "That table leaves both ways back of DeepSeek3.2 blank."),
    Row("Qwen3 Next", {"80B": "qwen3-next-80b-a3b"}),
)
