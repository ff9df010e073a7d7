"""A gallery under examination: the doctor's findings in its own words, and what is done about those that are confirmed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.enrolment import quality_findings
from facedex.indexer.errors import InvalidArgument, NotFound
from facedex.indexer.evaluation.doctor import NOBODY, Ailment, Finding, Remedy, examine
from facedex.indexer.evaluation.neighbours import LEAST_PEOPLE
from facedex.indexer.evaluation.self_search import ErrorRates
from facedex.indexer.vision.face import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facedex.indexer.gallery import Gallery, Templates
    from facedex.indexer.policy import QualityLimits
    from facedex.indexer.store.records import IdentityRecord, TemplateRecord

IDENTITIES_PER_READ = 1_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """A finding about a gallery.

    name: what it is called when it is confirmed; the same finding has the same name as long as it stands.
    identity_id, other_id: external ids; `other_id` is empty where the finding names nobody else.
    template_ids: those that the remedy concerns.
    broken_limits: what the gallery's enrolment policy would say to them today.
    """

    name: str
    finding: Finding
    identity_id: str
    other_id: str
    template_ids: tuple[int, ...]
    broken_limits: tuple[str, ...]

    @property
    def ailment(self) -> Ailment:
        return self.finding.ailment

    @property
    def is_applicable(self) -> bool:
        """Whether it can be done without a person who looks first."""
        return self.finding.remedy is not Remedy.LOOK


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found in a gallery.

    asked: the cosine that decides, or that the caller named. threshold: the one that was searched with; see `examine`.
    before: error rates of the gallery as it is, searched against itself at the threshold.
    """

    identities: int
    templates: int
    asked: float
    threshold: float
    before: ErrorRates
    proposals: tuple[Proposal, ...]

    @staticmethod
    def of(gallery: Gallery, *, threshold: float, report: Callable[[float], None] = lambda _share: None) -> Checkup:
        """Examines a gallery as it stands in the store; people who have expired are not among its templates.

        Raises:
            InvalidArgument: too few people are enrolled to know what chance gives.

        """
        roster = _Roster.of(gallery)
        templates = roster.alive(gallery.templates())
        people = len(np.unique(templates.identity_ids))
        if people < LEAST_PEOPLE:
            raise InvalidArgument(
                "--gallery", f"has {people} people; what chance alone gives is seen from {LEAST_PEOPLE} people on"
            )
        broken = roster.broken_limits(templates, gallery.policy.enrolment.quality_limits)
        diagnosis = examine(
            templates.vectors,
            templates.identity_ids,
            threshold=threshold,
            refused=np.array([bool(each) for each in broken]),
            report=report,
        )
        proposals = tuple(_proposal(each, templates, roster, broken) for each in diagnosis.findings)
        return Checkup(people, len(templates), threshold, diagnosis.threshold, diagnosis.before, proposals)


@dataclass(frozen=True, slots=True)
class _Roster:
    """Who is enrolled: external ids by the store's numbers of identities, and templates by their numbers."""

    names: dict[int, str]
    templates: dict[int, TemplateRecord]

    @staticmethod
    def of(gallery: Gallery) -> _Roster:
        people = list(_everybody(gallery))
        return _Roster(
            {each.id: each.external_id for each in people},
            {template.id: template for each in people for template in each.templates},
        )

    def alive(self, templates: Templates) -> Templates:
        return templates.taken(np.array([each in self.templates for each in templates.template_ids.tolist()], np.bool_))

    def broken_limits(self, templates: Templates, limits: QualityLimits) -> list[tuple[str, ...]]:
        """Of each template; none where it came as a vector, without a photograph."""
        return [_broken(self.templates[each], limits) for each in templates.template_ids.tolist()]


def _everybody(gallery: Gallery) -> Iterator[IdentityRecord]:
    after = ""
    while page := gallery.store.identities(gallery.record, after=after, limit=IDENTITIES_PER_READ):
        yield from page
        after = page[-1].external_id


def _broken(template: TemplateRecord, limits: QualityLimits) -> tuple[str, ...]:
    if template.quality is None:
        return ()
    return tuple(each.reason.value for each in quality_findings(Quality(**template.quality), limits))


def _proposal(finding: Finding, templates: Templates, roster: _Roster, broken: Sequence[tuple[str, ...]]) -> Proposal:
    numbers = tuple(templates.template_ids[list(finding.templates)].tolist())
    reasons = {reason: None for row in finding.templates for reason in broken[row]}
    return Proposal(
        _name(finding, numbers),
        finding,
        roster.names[finding.identity],
        "" if finding.other == NOBODY else roster.names[finding.other],
        numbers,
        tuple(reasons) if len(numbers) == 1 else (),
    )


def _name(finding: Finding, template_ids: Sequence[int]) -> str:
    """Of numbers that are never used again, so that it cannot come to mean something else."""
    if finding.ailment is Ailment.DUPLICATE:
        return f"d{finding.other}+{finding.identity}"
    return f"n{finding.identity}" if finding.ailment is Ailment.NEAR_MISSES else f"t{template_ids[0]}"


class Outcome(Enum):
    """What became of a proposal that was confirmed."""

    MERGED = "merged"
    ERASED = "erased"
    LAST_TEMPLATE = "kept, since it is the identity's last template"
    GONE = "not done: the gallery has changed since it was examined"


def carry_out(gallery: Gallery, proposal: Proposal) -> Outcome:
    """Does what a proposal says, as a change that every server over the same store follows.

    An identity's last template is never erased, whatever was confirmed before it.

    Raises:
        InvalidArgument: only a person can tell what to do.

    """
    if not proposal.is_applicable:
        raise InvalidArgument("--apply", f"{proposal.name} needs somebody who looks at the photographs")
    try:
        return _merge(gallery, proposal) if proposal.finding.remedy is Remedy.MERGE else _erase(gallery, proposal)
    except NotFound:
        return Outcome.GONE


def _merge(gallery: Gallery, proposal: Proposal) -> Outcome:
    gallery.merge_identities(proposal.other_id, into=proposal.identity_id)
    return Outcome.MERGED


def _erase(gallery: Gallery, proposal: Proposal) -> Outcome:
    there = {each.id for each in gallery.store.identity(gallery.record, proposal.identity_id).templates}
    if not there.issuperset(proposal.template_ids):
        return Outcome.GONE
    if len(there) == len(proposal.template_ids):
        return Outcome.LAST_TEMPLATE
    for template_id in proposal.template_ids:
        gallery.delete_template(template_id)
    return Outcome.ERASED
