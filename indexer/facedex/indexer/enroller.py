from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np

from facedex.indexer.answers import answer_from_json, answer_to_json, request_digest
from facedex.indexer.enrolment import (
    EnrolItem,
    Enrolment,
    EnrolOutcome,
    EnrolReason,
    EnrolResult,
    Finding,
    VectorItem,
)
from facedex.indexer.errors import (
    InvalidArgument,
    ModelChanged,
    RequestIdReused,
    StoreUnavailable,
    VectorInvalid,
    WrongModel,
)
from facedex.indexer.eyes import LookRules
from facedex.indexer.guards import Lookalike, Newcomers, action_for, guard_finding
from facedex.indexer.policy import GuardAction
from facedex.indexer.shared_turns import SharedTurns
from facedex.indexer.store.enrolling import EnrolmentEntry
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate, RememberedRequest, SuccessorVector
from facedex.indexer.vectors import checked_vector
from facedex.indexer.vision.crops import encode_crop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from facedex.indexer.audit import AuditEvent
    from facedex.indexer.enrolment import Enrol
    from facedex.indexer.eyes import Eyes, Look
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.store.enrolling import Enrolled
    from facedex.indexer.store.records import AddedTemplate, LedgerMark
    from facedex.indexer.vision.pipeline import FaceCrop

MAX_ITEMS = 100
MAX_REQUEST_ID_CHARACTERS = 64
# Requests of one transaction. Others who enrol into the gallery wait for it.
MAX_GROUP = 32


class MarkOf(Protocol):
    """The mark of a bulk enrolment, for the results of the items that are enrolled now."""

    def __call__(self, results: Sequence[EnrolResult], /) -> LedgerMark: ...


class EventsOf(Protocol):
    """What the audit says of answers."""

    def __call__(self, answers: Sequence[Enrolment], /) -> Sequence[AuditEvent]: ...


def no_checkpoint() -> None:
    """Nobody waits: go on."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request whose photographs are vectors already, or that was answered before."""

    request: Enrol
    digest: str
    items: tuple[_Prepared, ...] = ()
    answer: Enrolment | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A prepared request with its caller: `checkpoint` raises where nobody waits any more, `events` is what the audit says."""

    prepared: PreparedRequest
    checkpoint: Callable[[], None] = no_checkpoint
    events: EventsOf | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An item on its way into the gallery: the answer so far, and what would be enrolled."""

    result: EnrolResult
    source_digest: str
    face: FaceCrop | None = None
    vector: NDArray[np.float32] | None = None
    successor: SuccessorVector | None = None

    @property
    def is_pending(self) -> bool:
        return self.result.outcome is EnrolOutcome.ENROLLED


class Enroller:
    """Takes photographs and vectors into one gallery.

    No silent choice (invariant 8): each item is enrolled, was enrolled before, or is refused with every reason. The same
    request id, or the same photograph for the same identity, is enrolled once.
    """

    def __init__(self, gallery: Gallery, eyes: Eyes) -> None:
        self._gallery = gallery
        self._eyes = eyes
        self.model_digest = gallery.record.model.digest
        """The model of the vectors that this one makes and takes."""
        # From looking for duplicates to applying, so that two photographs of one person cannot pass each other.
        self._committing = threading.Lock()
        self._turns = SharedTurns(self.commit_each, at_most=MAX_GROUP)

    def enrol(self, request: Enrol, *, checkpoint: Callable[[], None] = no_checkpoint) -> Enrolment:
        """Raises what `checkpoint` raises, before anything is kept."""
        return self.commit_shared(Submission(self.prepare(request, checkpoint=checkpoint), checkpoint))

    def known_sources(self, external_ids: Iterable[str]) -> dict[str, dict[str, int]]:
        """Identity → digest of photograph → template: what need not be looked at again."""
        return self._gallery.store.sources_among(self._gallery.record, external_ids)

    def prepare(
        self,
        request: Enrol,
        *,
        known: Mapping[str, int] | None = None,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> PreparedRequest:
        """What can be done without the others' turn: looking at the photographs. Changes nothing.

        `known` is what `known_sources` says of the identity, for callers who ask for many at once.
        """
        _check(request)
        sources = [source_digest(item) for item in request.items]
        prepared = PreparedRequest(_without_photographs(request), request_digest(request, sources))
        if not all(isinstance(item, VectorItem) for item in request.items):
            # Spares looking at photographs in vain; all of it is asked again when the request has its turn.
            (prepared,) = self._answered([prepared])
            if prepared.answer is not None:
                return prepared
            name = request.details.external_id
            known = self.known_sources([name]).get(name, {}) if known is None else known
        return replace(prepared, items=self._prepare(request, sources, known or {}, checkpoint=checkpoint))

    def commit(self, prepared: Sequence[PreparedRequest], *, mark: MarkOf) -> list[Enrolment]:
        """Enrols in this order, as if one after the other, and answers each; no request id may come twice.

        All of it is one transaction, which also notes how far a bulk enrolment is: `mark` is called with the result of each
        item.
        """
        with self._committing:
            return self._commit(prepared, mark=mark)

    def commit_shared(self, submission: Submission) -> Enrolment:
        """Enrols one in the transaction of all who came while others had their turn; who comes alone is enrolled alone."""
        return self._turns.result_of(submission)

    def commit_each(self, submissions: Sequence[Submission]) -> list[Enrolment | Exception]:
        """Enrols in this order, and tells what became of each: what one of them is refused for spoils no other one.

        All of it is one transaction, with what the audit says; only a request id that comes twice makes it two, and where
        something cannot be enrolled, each has a transaction of its own.
        """
        with self._committing:
            return [outcome for part in _without_repetitions(submissions) for outcome in self._commit_part(part)]

    def _commit_part(self, submissions: Sequence[Submission]) -> list[Enrolment | Exception]:
        refusals = [_refusal(each.checkpoint) for each in submissions]
        waiting = [each for each, refusal in zip(submissions, refusals, strict=True) if refusal is None]
        outcomes = iter(self._commit_together(waiting))
        return [next(outcomes) if refusal is None else refusal for refusal in refusals]

    def _commit_together(self, submissions: Sequence[Submission]) -> list[Enrolment | Exception]:
        if not submissions:
            return []
        try:
            return [*self._commit([each.prepared for each in submissions], events=_events_of(submissions))]
        except StoreUnavailable as error:  # whether it was committed is unknown; each of them may be sent again
            return [error] * len(submissions)
        except Exception as error:  # noqa: BLE001  (whatever it is, the others may be enrolled)
            if len(submissions) == 1:
                return [error]
            return [outcome for each in submissions for outcome in self._commit_together([each])]

    def rehearse(self, prepared: Sequence[PreparedRequest]) -> list[EnrolResult]:
        """What would become of each item; nothing is kept."""
        return [item.result for each in self._checked(prepared) for item in each.items]

    # From photographs to vectors

    def _prepare(
        self, request: Enrol, sources: Sequence[str], known: Mapping[str, int], *, checkpoint: Callable[[], None]
    ) -> tuple[_Prepared, ...]:
        unknown = [
            item
            for item, source in zip(request.items, sources, strict=True)
            if source not in known and not isinstance(item, VectorItem)
        ]
        looks = iter(self._eyes.look(unknown, self._rules(request), checkpoint=checkpoint) if unknown else ())
        return tuple(
            _known(source, known[source])
            if source in known
            else self._prepare_vector(item, source)
            if isinstance(item, VectorItem)
            else _seen(source, next(looks))
            for item, source in zip(request.items, sources, strict=True)
        )

    def _rules(self, request: Enrol) -> LookRules:
        policy = self._gallery.policy.enrolment
        return LookRules(request.several_faces or policy.several_faces, policy.quality_limits)

    def _prepare_vector(self, item: VectorItem, source: str) -> _Prepared:
        try:
            vector = checked_vector(item.vector, model_digest=item.model_digest, model=self._gallery.record.model)
        except VectorInvalid as error:
            return _refused(source, Finding(EnrolReason.VECTOR_INVALID, str(error)))
        except WrongModel as error:
            return _refused(source, Finding(EnrolReason.WRONG_MODEL, str(error)))
        return _Prepared(EnrolResult(EnrolOutcome.ENROLLED), source, vector=vector)

    # As the gallery stands

    def _checked(self, prepared: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """With what is known and what is found now that they have their turn."""
        return self._guarded(self._without_known(self._answered(prepared)))

    def _answered(self, prepared: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """With the first answers of those that were answered before.

        Raises:
            RequestIdReused: by another request.

        """
        ids = {each.request.request_id for each in prepared if each.answer is None} - {""}
        answered = self._gallery.store.remembered_among(self._gallery.record, ids) if ids else {}
        if answered:
            self._gallery.catch_up()  # another process may have given an answer
        return [_with_answer(each, answered.get(each.request.request_id)) for each in prepared]

    def _without_known(self, prepared: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """With the photographs that their identities have already left out."""
        names = {each.request.details.external_id for each in prepared if each.answer is None}
        sources = self._gallery.store.sources_among(self._gallery.record, names) if names else {}
        return [_without(each, sources.get(each.request.details.external_id, {})) for each in prepared]

    def _guarded(self, prepared: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        most = sum(len(each.items) for each in prepared)
        newcomers = Newcomers(most=most, dimension=self._gallery.record.model.dimension)
        lookalikes = iter(self._lookalikes(prepared))
        guarded: list[PreparedRequest] = []
        for each in prepared:
            if self._has_guards(each.request):
                items = tuple(
                    item
                    if item.vector is None
                    else self._guard(each.request, item, item.vector, next(lookalikes), newcomers)
                    for item in each.items
                )
                guarded.append(replace(each, items=items))
            else:
                guarded.append(each)
            for item in guarded[-1].items:
                if item.vector is not None:
                    newcomers.add(each.request.details.external_id, item.vector)
        return guarded

    def _lookalikes(self, prepared: Sequence[PreparedRequest]) -> list[Lookalike | None]:
        """For each vector that is guarded, in order, the nearest identity other than its own in the gallery."""
        vectors = [
            (each.request.details.external_id, item.vector)
            for each in prepared
            if self._has_guards(each.request)
            for item in each.items
            if item.vector is not None
        ]
        if not vectors:
            return []
        others = self._gallery.best_others(
            np.stack([vector for _, vector in vectors]),
            [identity_id for identity_id, _ in vectors],
            min_score=self._gallery.guard_threshold,
        )
        return [None if each is None else Lookalike(each.identity.external_id, each.score) for each in others]

    def _has_guards(self, request: Enrol) -> bool:
        return {*self._guard_actions(request)} != {GuardAction.ALLOW}

    def _guard_actions(self, request: Enrol) -> tuple[GuardAction, GuardAction]:
        """What is done to duplicates, and to faces that are somebody else's."""
        policy = self._gallery.policy.enrolment
        return request.duplicate_action or policy.duplicate_action, request.mislabel_action or policy.mislabel_action

    def _guard(
        self,
        request: Enrol,
        prepared: _Prepared,
        vector: NDArray[np.float32],
        enrolled: Lookalike | None,
        newcomers: Newcomers,
    ) -> _Prepared:
        identity_id = request.details.external_id
        coming = newcomers.nearest_other(vector, identity_id=identity_id, min_score=self._gallery.guard_threshold)
        other = max((each for each in (enrolled, coming) if each), key=lambda each: each.score, default=None)
        if other is None:
            return prepared
        own = (self._gallery.best_score(vector, identity_id), newcomers.own_score(vector, identity_id=identity_id))
        finding = guard_finding(other, own_score=max((each for each in own if each is not None), default=None))
        duplicate, mislabel = self._guard_actions(request)
        return _with_finding(prepared, finding, action_for(finding, duplicate=duplicate, mislabel=mislabel))

    # From vectors to templates

    def _commit(
        self,
        prepared: Sequence[PreparedRequest],
        *,
        mark: MarkOf | None = None,
        events: EventsOf | None = None,
    ) -> list[Enrolment]:
        self._gallery.catch_up()
        if self._gallery.record.model.digest != self.model_digest:
            raise ModelChanged(self._gallery.record.name)
        checked = self._checked(prepared)
        entries = [self._entry(each) for each in checked if _is_to_be_enrolled(each)]
        if not entries and mark is None:
            return self._answers(checked, ())
        answers: list[Enrolment] = []

        def answered(enrolled: Sequence[Enrolled]) -> list[Enrolment]:
            answers[:] = answers or self._answers(checked, enrolled)
            return answers

        def ledger(enrolled: Sequence[Enrolled]) -> LedgerMark | None:
            return None if mark is None else mark([each for answer in answered(enrolled) for each in answer.results])

        def audited(enrolled: Sequence[Enrolled]) -> Sequence[AuditEvent]:
            return () if events is None else events(answered(enrolled))

        return answered(self._gallery.enrol_all(entries, mark=ledger, events=None if events is None else audited))

    def _answers(self, checked: Sequence[PreparedRequest], enrolled: Sequence[Enrolled]) -> list[Enrolment]:
        rest = iter(enrolled)
        return [_answer(each, next(rest)) if _is_to_be_enrolled(each) else self._unchanged(each) for each in checked]

    def _entry(self, prepared: PreparedRequest) -> EnrolmentEntry:
        request = prepared.request
        templates = tuple(self._template(each) for each in prepared.items if each.is_pending)

        def remembered(enrolled: Enrolled) -> RememberedRequest | None:
            if not request.request_id:
                return None
            return RememberedRequest(request.request_id, prepared.digest, answer_to_json(_answer(prepared, enrolled)))

        return EnrolmentEntry(self._new_enrolment(request.details, templates), remembered)

    def _unchanged(self, prepared: PreparedRequest) -> Enrolment:
        """The answer of a request that enrols nothing."""
        if prepared.answer is not None:
            return prepared.answer
        results = tuple(each.result for each in prepared.items)
        return Enrolment(prepared.request.details.external_id, results, self._gallery.revision)

    def _new_enrolment(self, details: IdentityDetails, templates: tuple[NewTemplate, ...]) -> NewEnrolment:
        gallery = self._gallery
        return NewEnrolment(
            details=details,
            model_digest=self.model_digest,
            templates=templates,
            default_expires_at=_expiry(gallery.store.now(), gallery.policy.retention_seconds),
        )

    def _template(self, prepared: _Prepared) -> NewTemplate:
        if prepared.vector is None:
            raise AssertionError("a pending item was embedded")
        face = prepared.face
        return NewTemplate(
            vector=prepared.vector,
            source_digest=prepared.source_digest,
            successor=prepared.successor,
            quality=None if face is None else asdict(face.face.quality),
            crop=encode_crop(face.crop) if face is not None and self._gallery.policy.keep_crops else None,
        )


def source_digest(item: EnrolItem) -> str:
    """SHA-256 of the photograph's bytes, or of a vector's components and model."""
    if isinstance(item, VectorItem):
        return hashlib.sha256(item.model_digest.encode() + item.vector.astype("<f4").tobytes()).hexdigest()
    return hashlib.sha256(item).hexdigest()


def _without_photographs(request: Enrol) -> Enrol:
    """They were looked at, and many requests wait for their turn."""
    return replace(request, items=())


def _check(request: Enrol) -> None:
    if not 1 <= len(request.items) <= MAX_ITEMS:
        raise InvalidArgument("items", f"needs 1 to {MAX_ITEMS} items, got {len(request.items)}")
    if len(request.request_id) > MAX_REQUEST_ID_CHARACTERS:
        raise InvalidArgument("request_id", f"may have {MAX_REQUEST_ID_CHARACTERS} characters at most")


def _known(source: str, template_id: int) -> _Prepared:
    return _Prepared(EnrolResult(EnrolOutcome.ALREADY_ENROLLED, template_id), source)


def _with_answer(prepared: PreparedRequest, remembered: RememberedRequest | None) -> PreparedRequest:
    if prepared.answer is not None or remembered is None:
        return prepared
    if remembered.digest != prepared.digest:
        raise RequestIdReused
    # Where the person was erased since, the answer no longer says whose it is; the request does.
    identity_id = prepared.request.details.external_id
    return replace(prepared, answer=replace(answer_from_json(remembered.answer), identity_id=identity_id))


def _without(prepared: PreparedRequest, known: Mapping[str, int]) -> PreparedRequest:
    """Without what the identity has, by the digest of the photograph."""
    items = tuple(
        _known(each.source_digest, known[each.source_digest])
        if each.is_pending and each.source_digest in known
        else each
        for each in prepared.items
    )
    return replace(prepared, items=items)


def _seen(source: str, look: Look) -> _Prepared:
    if look.findings:
        return _Prepared(EnrolResult(EnrolOutcome.REFUSED, refusals=look.findings, faces=look.faces), source)
    result = EnrolResult(EnrolOutcome.ENROLLED, faces=look.faces)
    return _Prepared(result, source, face=look.face, vector=look.vector, successor=look.successor)


def _refused(source: str, *findings: Finding) -> _Prepared:
    return _Prepared(EnrolResult(EnrolOutcome.REFUSED, refusals=findings), source)


def _with_finding(prepared: _Prepared, finding: Finding, action: GuardAction) -> _Prepared:
    if action is GuardAction.ALLOW:
        return prepared
    if action is GuardAction.WARN:
        return replace(prepared, result=replace(prepared.result, warnings=(finding,)))
    return replace(
        prepared, result=replace(prepared.result, outcome=EnrolOutcome.REFUSED, refusals=(finding,)), vector=None
    )


def _without_repetitions(submissions: Iterable[Submission]) -> Iterator[list[Submission]]:
    """In parts in which no request id comes twice: the second one gets the answer of the first."""
    part: list[Submission] = []
    ids: set[str] = set()
    for each in submissions:
        request_id = each.prepared.request.request_id
        if request_id and request_id in ids:
            yield part
            part, ids = [], set()
        part.append(each)
        ids.add(request_id)
    yield part


def _refusal(checkpoint: Callable[[], None]) -> Exception | None:
    try:
        checkpoint()
    except Exception as error:  # noqa: BLE001  (raised again where its caller waits)
        return error
    return None


def _events_of(submissions: Sequence[Submission]) -> EventsOf | None:
    """What the audit says of all of them, in their order."""
    if all(each.events is None for each in submissions):
        return None

    def events(answers: Sequence[Enrolment]) -> list[AuditEvent]:
        asked = zip(submissions, answers, strict=True)
        return [event for each, answer in asked if each.events is not None for event in each.events([answer])]

    return events


def _is_to_be_enrolled(prepared: PreparedRequest) -> bool:
    """Not where it was answered before, nor where every item is refused."""
    return prepared.answer is None and any(each.is_pending or each.result.template_id for each in prepared.items)


def _answer(prepared: PreparedRequest, enrolled: Enrolled) -> Enrolment:
    return Enrolment(prepared.request.details.external_id, _results(prepared.items, enrolled), enrolled.revision)


def _results(prepared: Sequence[_Prepared], enrolled: Enrolled) -> tuple[EnrolResult, ...]:
    added = iter(enrolled.templates)
    return tuple(_result(each.result, next(added)) if each.is_pending else each.result for each in prepared)


def _result(result: EnrolResult, added: AddedTemplate) -> EnrolResult:
    outcome = EnrolOutcome.ENROLLED if added.is_new else EnrolOutcome.ALREADY_ENROLLED
    return replace(result, outcome=outcome, template_id=added.template_id)


def _expiry(now: datetime, retention_seconds: float | None) -> datetime | None:
    return None if retention_seconds is None else now + timedelta(seconds=retention_seconds)
