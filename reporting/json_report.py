"""The report as proto3 JSON, for programs."""

from __future__ import annotations

from google.protobuf import json_format

from reporting.report import Report


def render(report: Report) -> str:
    """report.json: the Report message with its field names as in the .proto file."""
    text: str = json_format.MessageToJson(report.to_proto(), preserving_proto_field_name=True, indent=1)
    return text + "\n"
