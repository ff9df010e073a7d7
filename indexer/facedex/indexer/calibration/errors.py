"""What can go wrong between scores and a promise; all of it is the caller's to mend.

CalibrationError
├── ScoresInvalid      the arrays contradict each other, or what a score can be
├── NoSearches         a rate of nothing is asked for
├── TailDoesNotFit     the highest scores do not look like a tail that can be extended
├── PromiseRefused     the data do not carry the target; says how many more identities would
├── CertificateInvalid  the document is of another format, or was changed
├── CertificateUnfit   it is of another model or another quality gate than the gallery
└── NotCalibrated      a target is asked of a gallery that has no certificate
"""

from __future__ import annotations

from facedex.indexer.errors import CallerError


class CalibrationError(CallerError):
    """Base of all errors of `facedex.indexer.calibration`."""

    reason = "CALIBRATION_FAILED"


class ScoresInvalid(CalibrationError):
    """The arrays contradict each other, or what a score can be."""

    reason = "SCORES_INVALID"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NoSearches(CalibrationError):
    """A rate of nothing is asked for."""

    reason = "NO_SEARCHES"

    def __init__(self, kind: str) -> None:
        super().__init__(f"there are no {kind} to take a rate of; add photographs that make some")
        self.kind = kind


class TailDoesNotFit(CalibrationError):
    """The highest scores do not look like a tail that can be extended beyond them."""

    reason = "TAIL_DOES_NOT_FIT"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the tail of the top non-mated scores cannot be extended: {problem}; "
            "look for one person enrolled twice, or search more strangers"
        )
        self.problem = problem


class PromiseRefused(CalibrationError):
    """The data do not carry the target.

    `further_identities` more strangers, each searched once and with no higher score than any so far, would carry it.
    `doubtful_searches` may have found a person's own second identity; without those a lower threshold might do.
    """

    reason = "PROMISE_REFUSED"

    def __init__(
        self,
        *,
        target_fpir: float,
        gallery_templates: int,
        independent_searches: float,
        doubtful_searches: int,
        further_identities: int,
    ) -> None:
        doubt = f"; {doubtful_searches} of them look like people who are enrolled twice" if doubtful_searches else ""
        super().__init__(
            f"FPIR {target_fpir:.3g} in a gallery of {gallery_templates} templates cannot be promised from what "
            f"counts as {independent_searches:.0f} independent non-mated searches{doubt}; "
            f"calibrate with at least {further_identities} further identities, or ask for a higher FPIR"
        )
        self.target_fpir = target_fpir
        self.gallery_templates = gallery_templates
        self.independent_searches = independent_searches
        self.doubtful_searches = doubtful_searches
        self.further_identities = further_identities


class CertificateInvalid(CalibrationError):
    """The document is of another format, or was changed."""

    reason = "CERTIFICATE_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the certificate {problem}")
        self.problem = problem


class CertificateUnfit(CalibrationError):
    """The certificate promises nothing for this gallery."""

    reason = "CERTIFICATE_UNFIT"

    def __init__(self, gallery: str, difference: str) -> None:
        super().__init__(
            f"the certificate does not hold for gallery {gallery}: {difference}; calibrate with what the gallery uses"
        )
        self.gallery = gallery
        self.difference = difference


class NotCalibrated(CalibrationError):
    """A target FPIR is asked of a gallery that has no certificate."""

    reason = "NOT_CALIBRATED"

    def __init__(self, gallery: str) -> None:
        super().__init__(f"gallery {gallery} has no certificate; calibrate it, or give a threshold as a cosine")
        self.gallery = gallery
