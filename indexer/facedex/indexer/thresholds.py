"""From a gallery's policy and certificate to the threshold that decides now."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from facedex.indexer.calibration.errors import CalibrationError, CertificateUnfit, NotCalibrated, PromiseRefused
from facedex.indexer.calibration.promise import Kind
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.identification import FpirBound, OperatingPoint, operating_point

if TYPE_CHECKING:
    from facedex.indexer.calibration.certificate import Certificate
    from facedex.indexer.calibration.operating_table import OperatingTable
    from facedex.indexer.policy import GalleryPolicy
    from facedex.indexer.store.records import GalleryRecord

# A threshold is resolved for a gallery that is a tenth larger, and again when the gallery has become larger than that.
HEADROOM = 1.1


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A threshold that keeps a target in galleries up to `largest` templates."""

    threshold: float
    smallest: int
    largest: int


class Thresholds:
    """Resolves thresholds for one gallery, with the certificate in force.

    A target FPIR is kept at the gallery's present size, or said not to be kept: never silently replaced by a guess.
    """

    def __init__(
        self,
        record: GalleryRecord,
        policy: GalleryPolicy,
        certificate: Certificate | None,
        *,
        detector_digest: str | None,
    ) -> None:
        self._record = record
        self._policy = policy
        self._certificate = certificate
        self._digest = "" if certificate is None else certificate.digest
        self._difference = "" if certificate is None else _difference(record, policy, certificate, detector_digest)
        self._resolved: dict[float, _Resolved] = {}

    @property
    def certificate(self) -> Certificate | None:
        """The one in force, whether it fits or not."""
        return self._certificate

    @property
    def fitting_table(self) -> OperatingTable | None:
        """Of the certificate in force, where it fits."""
        return None if self._certificate is None or self._difference else self._certificate.table

    def point(
        self, templates: int, *, requested: float | None = None, target_fpir: float | None = None
    ) -> OperatingPoint:
        """The operating point of a gallery of so many templates.

        Args:
            templates: how many templates are searched.
            requested: a cosine that the request names.
            target_fpir: a target that the request names.

        Raises:
            InvalidArgument: the request names both.
            NotCalibrated: the request names a target, and there is no certificate.
            CertificateUnfit: the request names a target, and the certificate is of something else.
            PromiseRefused: the request names a target that the certificate does not carry.

        """
        if requested is not None and target_fpir is not None:
            raise InvalidArgument("target_fpir", "give a threshold or a target, not both")
        if target_fpir is not None:
            return self._promised(target_fpir, templates, "the target of the request")
        if requested is None and self._policy.decision.target_fpir is not None:
            return self._by_policy(self._policy.decision.target_fpir, templates)
        point = operating_point(self._record.model, self._policy.decision, requested=requested)
        return replace(point, fpir=self._bound(point.threshold, templates))

    def _by_policy(self, target: float, templates: int) -> OperatingPoint:
        try:
            return self._promised(target, templates, "the gallery's target")
        except CalibrationError as error:
            # The strictest that is known: what reaches it is shown to a person, and nobody is told that it is a match.
            point = operating_point(
                self._record.model, replace(self._policy.decision, target_fpir=None), requested=None
            )
            return replace(
                point, target_fpir=target, fpir=self._bound(point.threshold, templates), broken_promise=str(error)
            )

    def _promised(self, target: float, templates: int, whose: str) -> OperatingPoint:
        threshold = self._threshold(target, templates)
        decision = replace(self._policy.decision, target_fpir=None, cosine=None)
        point = operating_point(self._record.model, decision, requested=threshold)
        basis = f"{whose}, FPIR at most {target:.3g}, by certificate {self._digest[:12]}"
        return replace(point, basis=basis, target_fpir=target, fpir=self._bound(threshold, templates))

    def _threshold(self, target: float, templates: int) -> float:
        known = self._resolved.get(target)
        if known is None or not known.smallest <= templates <= known.largest:
            known = self._resolve(target, max(1, templates))
            self._resolved[target] = known
        return known.threshold

    def _resolve(self, target: float, templates: int) -> _Resolved:
        certificate = self._fitting()
        try:
            largest = ceil(HEADROOM * templates)
            resolved = certificate.table.resolve(target, gallery_templates=largest)
        except PromiseRefused:  # perhaps it holds just now
            largest = templates
            resolved = certificate.table.resolve(target, gallery_templates=largest)
        return _Resolved(resolved.threshold, int(templates / HEADROOM), largest)

    def _fitting(self) -> Certificate:
        if self._certificate is None:
            raise NotCalibrated(self._record.name)
        if self._difference:
            raise CertificateUnfit(self._record.name, self._difference)
        return self._certificate

    def _bound(self, threshold: float, templates: int) -> FpirBound | None:
        if self._certificate is None or self._difference or not templates:
            return None
        fpir = self._certificate.table.fpir(threshold, gallery_templates=templates)
        return FpirBound(self._digest, fpir.lower, fpir.estimate, fpir.upper, fpir.kind is Kind.MEASURED)


def _difference(
    record: GalleryRecord, policy: GalleryPolicy, certificate: Certificate, detector_digest: str | None
) -> str:
    """What the certificate was made with and the gallery does not use; empty where it fits."""
    subject = certificate.subject
    if subject.model_digest != record.model.digest:
        return f"it was made with model {subject.model_name}, and the gallery uses {record.model.name}"
    if subject.detector_digest and detector_digest and subject.detector_digest != detector_digest:
        return f"it was made with detector {subject.detector_name}, and this server uses another one"
    if subject.quality_limits != asdict(policy.enrolment.quality_limits):
        return "it was made with other quality limits"
    return ""
