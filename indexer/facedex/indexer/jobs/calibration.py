"""Calibrates a gallery from itself."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

import numpy as np

from facedex.indexer.calibration.certificate import Certificate, Dataset, Source, Subject
from facedex.indexer.calibration.errors import NoSearches
from facedex.indexer.calibration.operating_table import OperatingTable
from facedex.indexer.calibration.promise import Promise
from facedex.indexer.calibration.scores import (
    NOBODY,
    MatedSearches,
    NonMatedSearches,
    Searches,
    searches_of_gallery,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from facedex.indexer.gallery import Gallery, Templates
    from facedex.indexer.policy import GalleryPolicy
    from facedex.indexer.search.template_index import Hit
    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.vision.manifest import ModelManifest

# Up to here every template is searched, and everybody is compared with everybody; beyond, a sample is searched.
MOST_SEARCHES = 20_000
SEARCHES_AT_ONCE = 500
SAMPLE_SEED = 20_260_101
# With fewer mated searches, nobody knows how alike two photographs of one person are here.
LEAST_MATED = 30
LIKE_ONE_PERSON = 0.6


class Calibrated(Protocol):
    """What a calibration needs of a gallery."""

    @property
    def record(self) -> GalleryRecord: ...
    @property
    def policy(self) -> GalleryPolicy: ...
    def rivals(self, templates: Templates) -> list[Hit | None]: ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was searched, and the document that says what it promises."""

    searches: Searches
    certificate: Certificate


def certificate_of_gallery(
    gallery: Gallery, *, detector: ModelManifest, report: Callable[[float], None] = lambda _share: None
) -> Certificate:
    """What the gallery's own templates promise: each is searched among everybody else's, at the true size.

    Enrolment photographs are usually better than probes, so FNIR is a lower limit; strangers are as they are among the
    enrolled.

    Raises:
        NoSearches: fewer than two people are enrolled.

    """
    return calibration_of_gallery(gallery, gallery.templates(), detector=detector, report=report).certificate


def calibration_of_gallery(
    gallery: Calibrated,
    templates: Templates,
    *,
    detector: ModelManifest,
    report: Callable[[float], None] = lambda _share: None,
) -> Calibration:
    """The same from templates that were read before, with the searches; `report` is told the share that is done.

    Raises:
        NoSearches: fewer than two people are enrolled.

    """
    if len(np.unique(templates.identity_ids)) < 2:
        raise NoSearches("non-mated searches: enrol at least two people")
    report(0.1)
    searches = searches_of(gallery, templates, report)
    subject = subject_of(gallery, detector)
    calibration = calibrated(
        searches, subject=subject, dataset=_dataset(templates), duplicates_from=like_one_person(searches.mated)
    )
    report(0.95)
    return calibration


def calibrated(
    searches: Searches, *, subject: Subject, dataset: Dataset, duplicates_from: float = np.inf
) -> Calibration:
    """What searches promise; pairs of identities that score `duplicates_from` or more may be one person.

    Raises:
        NoSearches: nobody was searched who is not enrolled.

    """
    promise = Promise.of(searches.non_mated, duplicates_from=duplicates_from)
    certificate = Certificate(
        created_at=_now(),
        software=_software(),
        subject=subject,
        dataset=dataset,
        tail=tail_of(promise),
        table=OperatingTable.of(promise, searches.mated),
    )
    return Calibration(searches, certificate)


def _now() -> str:
    """When a certificate is made: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _software() -> str:
    """What makes it."""
    return f"facedex {version('facedex')}"


def searches_of(gallery: Calibrated, templates: Templates, report: Callable[[float], None]) -> Searches:
    """The gallery searched with its own templates, or with a sample of them."""
    if len(templates) <= MOST_SEARCHES:
        return searches_of_gallery(templates.vectors, templates.identity_ids)
    chosen = np.random.default_rng(SAMPLE_SEED).choice(len(templates), MOST_SEARCHES, replace=False)
    sample = templates.taken(np.sort(chosen))
    rivals, owners = _rivals(gallery, sample, report)
    mates = _best_own(templates, sample)
    compared = len(templates) * (1 - 1 / len(np.unique(templates.identity_ids)))
    mated = np.isfinite(mates)
    return Searches(
        NonMatedSearches(rivals, sample.identity_ids, owners, round(compared)),
        # Whoever is behind a rival is behind at least one: the exact place does not matter to any rate of rank 1.
        MatedSearches(mates[mated], np.where(mates > rivals, 1, 2)[mated].astype(np.int64), sample.identity_ids[mated]),
    )


def _rivals(
    gallery: Calibrated, sample: Templates, report: Callable[[float], None]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores, owners = np.full(len(sample), -np.inf), np.full(len(sample), NOBODY, np.int64)
    for start in range(0, len(sample), SEARCHES_AT_ONCE):
        places = np.arange(start, min(start + SEARCHES_AT_ONCE, len(sample)))
        for place, hit in zip(places.tolist(), gallery.rivals(sample.taken(places)), strict=True):
            if hit is not None:
                scores[place], owners[place] = hit.score, hit.identity_id
        report(0.1 + 0.8 * float(places[-1] + 1) / len(sample))
    return scores, owners


def _best_own(templates: Templates, sample: Templates) -> NDArray[np.float64]:
    """The cosine of each sampled template to the best other one of its identity; −inf where there is none."""
    order = np.argsort(templates.identity_ids, kind="stable")
    ordered = templates.taken(order)
    starts = np.searchsorted(ordered.identity_ids, sample.identity_ids, side="left")
    stops = np.searchsorted(ordered.identity_ids, sample.identity_ids, side="right")
    best = np.full(len(sample), -np.inf)
    for place in np.flatnonzero(stops - starts > 1).tolist():
        own = ordered.taken(np.arange(starts[place], stops[place]))
        others = own.vectors[own.template_ids != sample.template_ids[place]]
        best[place] = min(1.0, float((others @ sample.vectors[place]).max()))
    return best


def like_one_person(mated: MatedSearches) -> float:
    """From this cosine on, two identities that are each other's nearest are likely one person who is enrolled twice."""
    return float(np.median(mated.mate_scores)) if len(mated) >= LEAST_MATED else LIKE_ONE_PERSON


def subject_of(gallery: Calibrated, detector: ModelManifest) -> Subject:
    """What a certificate of this gallery holds for."""
    model = gallery.record.model
    return Subject(
        model_name=model.name,
        model_digest=model.digest,
        detector_name=detector.name,
        detector_digest=detector.digest,
        quality_limits=asdict(gallery.policy.enrolment.quality_limits),
    )


def tail_of(promise: Promise) -> dict[str, float] | None:
    """The fitted tail, for whoever examines a certificate; None where no tail fits."""
    tail = promise.tail
    if tail is None:
        return None
    return {
        "start": tail.start,
        "share": tail.share,
        "shape": tail.shape,
        "scale": tail.scale,
        "exceedances": tail.exceedances,
        "fit_p_value": tail.fit.p_value,
    }


def _dataset(templates: Templates) -> Dataset:
    digest = hashlib.sha256()
    for array in (templates.template_ids, templates.identity_ids, templates.vectors):
        digest.update(np.ascontiguousarray(array).data)
    people = len(np.unique(templates.identity_ids))
    return Dataset(Source.GALLERY, digest.hexdigest(), people, len(templates), 0, len(templates) / people)
