"""What an examination found, on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.v1 import consistency_pb2

if TYPE_CHECKING:
    from facedex.indexer.consistency.findings import Finding, Report


def wire_report(report: Report) -> consistency_pb2.CheckConsistencyResponse:
    return consistency_pb2.CheckConsistencyResponse(
        gallery=report.gallery,
        revision=report.revision,
        template_count=report.templates,
        duration_seconds=report.seconds,
        findings=[_finding(each) for each in report.findings],
        counts=[consistency_pb2.FaultCount(fault=fault.label, count=count) for fault, count in report.counts.items()],
    )


def _finding(finding: Finding) -> consistency_pb2.ConsistencyFinding:
    return consistency_pb2.ConsistencyFinding(
        fault=finding.fault.label,
        template_id=finding.template_id or 0,
        detail=finding.detail,
        remedy=finding.fault.remedy.value,
    )
