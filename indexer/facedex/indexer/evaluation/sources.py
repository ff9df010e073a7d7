"""Where the searches of a calibration come from: labelled photographs, the gallery itself, or a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from facedex.indexer.calibration.certificate import Certificate, Dataset, Source, Subject
from facedex.indexer.calibration.correction import ProbeCorrection, corrected_table
from facedex.indexer.calibration.scores import Searches
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired
from facedex.indexer.evaluation.gallery_probes import GalleryProbes, labels_of_gallery, without_enrolled
from facedex.indexer.evaluation.labelled import GatedFaces, LabelledSearches, Split, Unusable
from facedex.indexer.jobs.calibration import Calibration, calibrated, calibration_of_gallery
from facedex.indexer.jobs.folder import Photograph

if TYPE_CHECKING:
    from facedex.indexer.calibration.operating_table import OperatingTable
    from facedex.indexer.evaluation.score_files import FileSearches
    from facedex.indexer.evaluation.searched import Labels
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.policy import QualityLimits
    from facedex.indexer.vision.manifest import ModelManifest

Look = Callable[[Sequence[Photograph]], Iterable[AcquiredFace | NotAcquired]]
"""Finds the faces of photographs, in their order."""

UNKNOWN_ENGINE = Subject("of the file", "", "of the file", "", {})


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A certificate and what it was made from; see `Report`."""

    certificate: Certificate
    searches: Searches
    labels: Labels
    failures: tuple[Unusable, ...] = ()
    uncorrected: OperatingTable | None = None
    notes: tuple[str, ...] = ()


def from_photographs(split: Split, look: Look, *, subject: Subject, limits: QualityLimits) -> Calibrated:
    """From a folder a person, of whom some are enrolled and the others searched.

    Raises:
        InvalidArgument: nobody could be enrolled.
        NoSearches: no stranger was searched.

    """
    photographs = split.photographs
    faces = GatedFaces.of(look(photographs), limits)
    labelled = LabelledSearches.of(split, faces)
    people = len(split.enrolled) + len(split.strangers)
    dataset = Dataset(Source.PHOTOGRAPHS, faces.digest(), people, len(photographs), len(faces.failures), 1.0)
    calibration = calibrated(labelled.searches, subject=subject, dataset=dataset)
    notes = _split_note(split, labelled)
    return Calibrated(calibration.certificate, labelled.searches, labelled.labels, faces.failures, notes=notes)


def _split_note(split: Split, labelled: LabelledSearches) -> tuple[str, ...]:
    not_enrolled = len(split.enrolled) - labelled.templates
    told = f"{labelled.templates} people were enrolled with one photograph each, {len(split.strangers)} were strangers."
    failed = f" {not_enrolled} could not be enrolled, and count as missed." if not_enrolled else ""
    left_out = f" {split.left_out} are in no list, and were left out." if split.left_out else ""
    return (told + failed + left_out,)


def from_gallery(gallery: Gallery, *, detector: ModelManifest, progress: Callable[[float], None]) -> Calibrated:
    """Each template of the gallery searched among everybody else's.

    Raises:
        NoSearches: fewer than two people are enrolled.

    """
    templates = gallery.templates()
    calibration = calibration_of_gallery(gallery, templates, detector=detector, report=progress)
    labels = labels_of_gallery(gallery, templates, calibration.searches)
    return Calibrated(calibration.certificate, calibration.searches, labels, notes=(ENROLMENT_NOTE,))


ENROLMENT_NOTE = (
    "Enrolment photographs are usually better than probes: FNIR is a lower limit."
    " A folder of labelled probes corrects it."
)


def from_gallery_and_probes(
    gallery: Gallery,
    photographs: Sequence[Photograph],
    look: Look,
    *,
    detector: ModelManifest,
    progress: Callable[[float], None],
) -> Calibrated:
    """The gallery itself, corrected by labelled probes.

    Raises:
        InvalidArgument: no photograph is left that is not enrolled itself.
        NoSearches: fewer than two people are enrolled.

    """
    templates = gallery.templates()
    alone = calibration_of_gallery(gallery, templates, detector=detector, report=progress)
    new = without_enrolled(gallery, photographs)
    if not new:
        raise InvalidArgument("PEOPLE", "holds nothing but photographs that are enrolled; give others as probes")
    faces = GatedFaces.of(look(new), gallery.policy.enrolment.quality_limits)
    if not faces.vectors:
        raise InvalidArgument("PEOPLE", "no probe gives a face that passes the quality gate")
    probes = GalleryProbes.of(gallery, templates, new, faces)
    known = labels_of_gallery(gallery, templates, alone.searches)
    mated = probes.searches.mated if len(probes.searches.mated) else alone.searches.mated
    return Calibrated(
        _corrected(alone, probes, faces),
        Searches(alone.searches.non_mated, mated),
        replace(probes.labels, names=known.names | probes.labels.names),
        faces.failures,
        alone.certificate.table,
        _probe_notes(probes, left_out=len(photographs) - len(new)),
    )


def _corrected(alone: Calibration, probes: GalleryProbes, faces: GatedFaces) -> Certificate:
    certificate = alone.certificate
    correction = ProbeCorrection.of(alone.searches, probes.searches)
    dataset = certificate.dataset
    searched = len(faces.vectors) + len(faces.failures)
    return replace(
        certificate,
        table=corrected_table(certificate.table, correction, probes.searches),
        correction=correction,
        dataset=replace(
            dataset,
            digest=hashlib.sha256((dataset.digest + faces.digest()).encode()).hexdigest(),
            photographs=dataset.photographs + searched,
            failures_to_acquire=dataset.failures_to_acquire + len(faces.failures),
        ),
    )


def _probe_notes(probes: GalleryProbes, *, left_out: int) -> tuple[str, ...]:
    strangers, mates = len(probes.searches.non_mated), len(probes.searches.mated)
    note = f"Corrected by {mates} probes of enrolled people and {strangers} of strangers."
    return (note + (f" {left_out} photographs are enrolled themselves, and were left out." if left_out else ""),)


def from_file(found: FileSearches) -> Calibrated:
    """Searches that another engine made. The certificate fits no gallery, since a file does not name its models.

    Raises:
        NoSearches: there is no non-mated search.

    """
    dataset = Dataset(
        Source.SCORES, found.digest, found.identities, found.photographs, found.failures, found.templates_per_identity
    )
    calibration = calibrated(found.searches, subject=UNKNOWN_ENGINE, dataset=dataset)
    return Calibrated(calibration.certificate, found.searches, found.labels)
