"""A report for programs: JSON with every figure, CSV with the DET points."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from facedex.indexer.calibration.errors import PromiseRefused

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.calibration.operating_table import OperatingRow
    from facedex.indexer.calibration.promise import FpirInterval
    from facedex.indexer.evaluation.report import Pair, Report

DET_COLUMNS = (
    "threshold",
    "fpir_lower",
    "fpir",
    "fpir_upper",
    "kind",
    "fnir_lower",
    "fnir",
    "fnir_upper",
)


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(document_of(report), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(report: Report, path: Path) -> None:
    """FPIR and FNIR with their 95 % limits at each threshold, in the gallery that was searched."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(DET_COLUMNS)
        writer.writerows(_det_row(row) for row in report.table.rows)


def document_of(report: Report) -> dict[str, Any]:
    """Rates are shares from 0 to 1, thresholds cosines; paths of photographs are left out."""
    return {
        "question": asdict(report.question),
        "answer": _refused(report.answer) if isinstance(report.answer, PromiseRefused) else _resolved(report.answer),
        "fnir": None if report.fnir is None else asdict(report.fnir),
        "verdict": report.verdict(),
        "notes": list(report.notes),
        "failures_to_acquire": [
            {"person": each.photograph.identity_id, "photograph": each.photograph.path.name, "problem": each.message}
            for each in report.failures
        ],
        "hardest_non_mated": [_pair(each) for each in report.hardest_non_mated()],
        "worst_mated": [_pair(each) for each in report.worst_mated()],
        "cohorts": [asdict(each) for each in report.cohorts],
        "uncorrected": None if report.uncorrected is None else report.uncorrected.to_json(),
        "certificate": {"digest": report.digest, "document": report.certificate.to_json()},
    }


def _resolved(answer: FpirInterval) -> dict[str, Any]:
    return {"resolved": True, **asdict(answer), "kind": answer.kind.value}


def _refused(refusal: PromiseRefused) -> dict[str, Any]:
    return {
        "resolved": False,
        "reason": str(refusal),
        "independent_searches": refusal.independent_searches,
        "doubtful_searches": refusal.doubtful_searches,
        "further_identities": refusal.further_identities,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {"score": pair.score, "probe": pair.probe, "enrolled": pair.enrolled}


def _det_row(row: OperatingRow) -> list[object]:
    fnir = ("", "", "") if row.fnir is None else (row.fnir.lower, row.fnir.estimate, row.fnir.upper)
    return [row.threshold, row.fpir.lower, row.fpir.estimate, row.fpir.upper, row.kind.value, *fnir]
