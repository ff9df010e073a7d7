"""Puts the model to which a gallery changes in force, and takes it back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.errors import NoSuccession, SuccessionTooSmall
from facedex.indexer.gallery import rivals_in
from facedex.indexer.jobs.calibration import calibration_of_gallery
from facedex.indexer.policy import policy_from_json, policy_to_json
from facedex.indexer.score_scale import LEAST_IDENTITIES, ScoreScale
from facedex.indexer.succession import in_force, policy_on_scale
from facedex.indexer.thresholds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.calibration.certificate import Certificate
    from facedex.indexer.gallery import Gallery, Templates
    from facedex.indexer.policy import GalleryPolicy
    from facedex.indexer.search.template_index import Hit
    from facedex.indexer.store.records import GalleryRecord, Succession
    from facedex.indexer.vision.manifest import ModelManifest


def measure_scale(gallery: Gallery) -> bool:
    """Measures how the scores of both models compare; False where too few people have vectors of both."""
    record = gallery.record
    old, new = templates_of_both(gallery)
    try:
        scale = ScoreScale.measured(old.vectors, new.vectors, old.identity_ids)
    except SuccessionTooSmall:
        return False
    gallery.store.successions.set_scale(record, scale.to_json())
    gallery.catch_up()
    return True


def templates_of_both(gallery: Gallery) -> tuple[Templates, Templates]:
    """The templates that have vectors of both models, in one order: with the old ones, with the new ones."""
    old, new = gallery.templates(), gallery.templates(_succession(gallery).model)
    old = old.taken(np.isin(old.template_ids, new.template_ids))
    by_number = np.argsort(new.template_ids)
    return old, new.taken(by_number[np.searchsorted(new.template_ids, old.template_ids, sorter=by_number)])


def cut_over(gallery: Gallery, *, detector: ModelManifest, report: Callable[[float], None]) -> None:
    """The new model answers from now on; whoever has no vector of it is found by the old one.

    A gallery with a target FPIR is calibrated for the new model first, so that the promise holds.

    Raises:
        SuccessionTooSmall: the scores of both models are needed, and cannot be compared.
        CalibrationError: the target cannot be promised with the new model.

    """
    record = gallery.record  # with the model that is meant, whatever is begun meanwhile
    counts = gallery.store.successions.counts(record)
    if not measure_scale(gallery) and _needs_scale(gallery, counts.embedded_templates < counts.templates):
        raise SuccessionTooSmall(identities=counts.embedded_identities, needed=LEAST_IDENTITIES)
    certificate = _certificate(gallery, detector=detector, report=report)
    gallery.store.successions.put_in_force(
        record,
        digest="" if certificate is None else certificate.digest,
        certificate=None if certificate is None else certificate.to_json(),
    )
    gallery.catch_up()


def _needs_scale(gallery: Gallery, some_are_left: bool) -> bool:  # noqa: FBT001  (one caller, one line above)
    decision = gallery.policy.decision
    return some_are_left or decision.cosine is not None or decision.review_cosine is not None


def _certificate(gallery: Gallery, *, detector: ModelManifest, report: Callable[[float], None]) -> Certificate | None:
    target = gallery.policy.decision.target_fpir
    if target is None:
        return None
    newly = NewGallery.of(gallery)
    made = calibration_of_gallery(newly, newly.templates(), detector=detector, report=report).certificate
    thresholds = Thresholds(newly.record, newly.policy, made, detector_digest=detector.digest)
    thresholds.point(gallery.template_count, target_fpir=target)  # raises where it cannot be promised
    return made


def finish(gallery: Gallery) -> None:
    """The new model's vectors take the place of the old ones; there is no way back. Raises SuccessionIncomplete."""
    gallery.store.successions.finish(gallery.record, policy=_on_new_scale)
    gallery.catch_up()


def _on_new_scale(policy: dict[str, Any], succession: Succession) -> dict[str, Any]:
    return policy_to_json(policy_on_scale(policy_from_json(policy), succession))


def _succession(gallery: Gallery) -> Succession:
    succession = gallery.record.succession
    if succession is None:
        raise NoSuccession(gallery.record.name)
    return succession


@dataclass(frozen=True, slots=True)
class NewGallery:
    """A gallery as it will be with the new model: what a calibration needs of it."""

    record: GalleryRecord
    policy: GalleryPolicy
    _gallery: Gallery

    @classmethod
    def of(cls, gallery: Gallery) -> NewGallery:
        record = in_force(gallery.record, _succession(gallery))
        return cls(replace(record, succession=None), policy_from_json(record.policy), gallery)

    def templates(self) -> Templates:
        return self._gallery.templates(self.record.model)

    def rivals(self, templates: Templates) -> list[Hit | None]:
        successor = self._gallery.succession
        if successor is None:
            raise NoSuccession(self.record.name)
        return rivals_in(successor.new, templates)
