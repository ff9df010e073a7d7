"""What the certificates of both models would say of a gallery that changes its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.jobs.calibration import calibration_of_gallery
from facedex.indexer.jobs.changeover import NewGallery, templates_of_both
from facedex.indexer.thresholds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.calibration.operating_table import OperatingTable
    from facedex.indexer.calibration.uncertainty import RateInterval
    from facedex.indexer.gallery import Gallery, Templates
    from facedex.indexer.jobs.calibration import Calibrated
    from facedex.indexer.vision.manifest import ModelManifest


@dataclass(frozen=True, slots=True)
class ModelRates:
    """Error rates of a model at a threshold, each (lower, estimate, upper); FNIR is None where nobody has two faces."""

    model: str
    at: str
    threshold: float
    fpir: tuple[float, float, float]
    fnir: tuple[float, float, float] | None


def rates_of_both(
    gallery: Gallery, *, detector: ModelManifest, report: Callable[[float], None]
) -> tuple[ModelRates, ModelRates, ModelRates]:
    """On the faces that have vectors of both: the old model, the new one, and the new one where strangers are as rare.

    Enrolment photographs are usually better than probes, so FNIR is a lower limit.

    Raises:
        NoSearches: fewer than two people have vectors of both.

    """
    old, new = templates_of_both(gallery)
    newly = NewGallery.of(gallery)
    count = gallery.template_count
    tables = (
        _table(gallery, old, detector, lambda share: report(share / 2)),
        _table(newly, new, detector, lambda share: report((1 + share) / 2)),
    )
    before = _rates(gallery, tables[0], "its threshold", _threshold(gallery, detector), count)
    after = _rates(newly, tables[1], "its threshold", _threshold(newly, detector), count)
    equal = next(
        (row.threshold for row in tables[1].rows if _fpir(tables[1], row.threshold, count)[1] <= before.fpir[1]), 1.0
    )
    return before, after, _rates(newly, tables[1], "the old model's FPIR", equal, count)


def _table(
    gallery: Calibrated, templates: Templates, detector: ModelManifest, report: Callable[[float], None]
) -> OperatingTable:
    return calibration_of_gallery(gallery, templates, detector=detector, report=report).certificate.table


def _threshold(gallery: Calibrated, detector: ModelManifest) -> float:
    """The one that the policy names, or that of the model."""
    return Thresholds(gallery.record, gallery.policy, None, detector_digest=detector.digest).point(1).threshold


def _rates(gallery: Calibrated, table: OperatingTable, at: str, threshold: float, count: int) -> ModelRates:
    fnir = table.fnir(threshold)
    return ModelRates(
        gallery.record.model.name,
        at,
        threshold,
        _fpir(table, threshold, count),
        None if fnir is None else _interval(fnir),
    )


def _fpir(table: OperatingTable, threshold: float, count: int) -> tuple[float, float, float]:
    fpir = table.fpir(threshold, gallery_templates=count)
    return fpir.lower, fpir.estimate, fpir.upper


def _interval(rate: RateInterval) -> tuple[float, float, float]:
    return rate.lower, rate.estimate, rate.upper
