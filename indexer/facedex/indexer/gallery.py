from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from facedex.indexer.calibration.certificate import Certificate
from facedex.indexer.calibration.errors import CertificateInvalid
from facedex.indexer.comparison import agreement
from facedex.indexer.drift import DriftReport, DriftWatch
from facedex.indexer.errors import GalleryNotFound, InvalidArgument, ModelChanged, NoFace, SeveralFacesFound
from facedex.indexer.failpoints import Step
from facedex.indexer.identification import (
    Candidate,
    Decision,
    FaceSelection,
    Identification,
    Identifications,
    OperatingPoint,
    ProbeQuality,
    Query,
    SearchMode,
    Verification,
    decide,
    operating_point,
)
from facedex.indexer.indexes import OpenedIndex
from facedex.indexer.policy import GalleryPolicy, policy_from_json
from facedex.indexer.rebuilds import Rebuilds
from facedex.indexer.search.template_index import Scope
from facedex.indexer.store.enrolling import EnrolmentEntry, no_mark
from facedex.indexer.store.records import ChangeOp
from facedex.indexer.store.tombstones import ErasureReason
from facedex.indexer.succession import SuccessionIndexes, add_vectors, in_force, policy_on_scale
from facedex.indexer.thresholds import Thresholds
from facedex.indexer.tracing import Work
from facedex.indexer.vectors import cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from facedex.indexer.indexes import Indexes
    from facedex.indexer.search.code_choice import CodeChoice
    from facedex.indexer.search.exact import Block
    from facedex.indexer.search.gallery_index import GalleryIndex
    from facedex.indexer.search.segment import Segment
    from facedex.indexer.search.template_index import Hit, TemplateIndex
    from facedex.indexer.store.enrolling import Enrolled, EventsAfter, MarkAfter
    from facedex.indexer.store.moment import StoreMoment
    from facedex.indexer.store.records import (
        Change,
        GalleryRecord,
        IdentityRecord,
        ModelRecord,
        NewEnrolment,
        RememberedRequest,
    )
    from facedex.indexer.store.store import Erased, Merged, Store
    from facedex.indexer.vision.pipeline import Detection, FaceCrop

logger = logging.getLogger(__name__)

MAX_LIMIT = 1_000


class Search(Protocol):
    """Finds the best identities of probes that it knows already."""

    def __call__(self, *, limit: int, min_score: float, scope: Scope) -> list[tuple[Hit, ...]]: ...


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Candidates of each probe, all of them still enrolled and not expired."""

    candidates: tuple[tuple[Candidate, ...], ...]
    revision: int


@dataclass(frozen=True, slots=True)
class _Searchable:
    """What a search goes by from its beginning to its end, whatever changes meanwhile."""

    model: ModelRecord
    index: GalleryIndex
    successor: SuccessionIndexes | None
    thresholds: Thresholds

    def found_by(self, probes: NDArray[np.float32], by_old_model: NDArray[np.float32] | None) -> Search:
        """How these probes are searched. Raises ModelsChanged where some people could not be found by them."""
        successor = self.successor
        if successor is None or not successor.is_in_force:
            return partial(self.index.search, probes)
        if by_old_model is None and successor.rest_count:
            raise ModelsChanged
        return partial(successor.search, probes, by_old_model)


class ModelsChanged(Exception):
    """Probes were embedded by other models than the gallery asks now; embed them again."""


@dataclass(frozen=True, slots=True)
class HeldGallery:
    """Index and store at one revision, unless the index leads; for an examination."""

    index: GalleryIndex
    revision: int
    moment: StoreMoment


@dataclass(frozen=True, slots=True)
class Templates:
    """Templates of a gallery: numbers (n,), the store's numbers of their identities (n,), unit vectors (n, dimension)."""

    template_ids: NDArray[np.int64]
    identity_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.template_ids)

    def taken(self, which: NDArray[Any]) -> Templates:
        return Templates(self.template_ids[which], self.identity_ids[which], self.vectors[which])


class Gallery:
    """One gallery: the place where store and index meet.

    The index may lag behind the store and never leads it (invariant 2): a change is committed first, then applied by
    `catch_up`, in commit order, and only then acknowledged. What the store no longer holds is never returned, even where
    the index still does (invariant 6).
    """

    def __init__(
        self, record: GalleryRecord, *, store: Store, indexes: Indexes, detector_digest: str | None = None
    ) -> None:
        self._record = record
        self._policy = policy_from_json(record.policy)
        self._store = store
        self._indexes = indexes
        self._detector_digest = detector_digest
        self._successor: SuccessionIndexes | None = None
        self._own_thresholds = self._loaded_own_thresholds(record)
        self._thresholds = self._thresholds_in_force()
        self._watch: DriftWatch | None = None
        opened = indexes.opened(record)
        self._index, self._revision = opened.index, opened.revision
        self._searchable = self._published()
        self._saved_revision = opened.revision
        self._erased_revision = 0
        self._copies_since: datetime | None = None
        self._applying = threading.Lock()
        self._rebuilds = Rebuilds(self._rebuild)

    @property
    def record(self) -> GalleryRecord:
        return self._record

    @property
    def policy(self) -> GalleryPolicy:
        return self._policy

    @property
    def revision(self) -> int:
        """How far the change log has been applied."""
        return self._revision

    @property
    def template_count(self) -> int:
        """Number of templates that a search may return."""
        return len(self._index)

    @property
    def search_plan(self) -> CodeChoice:
        """The codes that its templates have for the scan, and why."""
        return self._index.choice

    @property
    def succession(self) -> SuccessionIndexes | None:
        """The indexes of the model that the gallery changes to, while it does."""
        return self._successor

    @property
    def asks_both_models(self) -> bool:
        """Whether some people are known to the old model alone, while the new one is in force."""
        return self._successor is not None and self._successor.rest_count > 0

    @property
    def store(self) -> Store:
        return self._store

    @property
    def parts(self) -> tuple[Block | Segment, ...]:
        """Everything that a search looks through now; for an examination."""
        return self._index.parts()

    # The change log

    def catch_up(self) -> None:
        """Applies every change that the store has and the index has not, whoever made it."""
        with self._applying:
            self._apply_changes()

    def _apply_changes(self) -> None:
        is_loaded = self._revision > 0
        for batch in self._store.changes(self._record.id, after=self._revision):
            _apply(batch, self._index, self._record.model)
            if self._successor is not None:
                self._successor.apply(batch)
            self._store.reached(Step.AFTER_APPLY)
            self._follow_orders({each.op for each in batch}, revision=batch[-1].seq)
            # Last: what the store failed at is applied again, which does no harm.
            self._revision = batch[-1].seq
            if is_loaded and any(each.op is ChangeOp.REBUILD for each in batch):
                self._rebuilds.ask()
        if (
            self._successor is None and self._record.succession is not None
        ):  # it was under way before this process began
            self._successor = self._successor_indexes(self._record, until=self._revision)
            self._searchable = self._published()

    def _follow_orders(self, ops: set[ChangeOp], *, revision: int) -> None:
        if ChangeOp.MODEL in ops:
            self._reload_model(revision)
        if ChangeOp.ERASE in ops:
            self._erased_revision = revision
            self._copies_since = self._copies_since or self._store.now()
        if ChangeOp.POLICY in ops:
            self._reload_policy()

    def _published(self) -> _Searchable:
        return _Searchable(self._record.model_in_force, self._index, self._successor, self._thresholds)

    def deliver(self) -> None:
        """Sends what a vector engine does not have yet, where there is one, and notes how far it is when it has all."""
        with self._applying:  # of one moment, for another model may be about to take its place
            record, index, revision, successor = self._record, self._index, self._revision, self._successor
        if index.deliver():
            self._indexes.note_delivered(record, revision)
        if successor is not None:
            successor.deliver()

    @contextmanager
    def held(self) -> Generator[HeldGallery]:
        """Index and store at one revision, while nobody can change either: writers wait, so be quick."""
        self.catch_up()
        with self._applying, self._store.held(self._record) as moment:
            self._apply_changes()
            yield HeldGallery(self._index, self._revision, moment)

    def _rebuild(self) -> None:
        """Builds a new index from the store while the old one answers and follows the log, then swaps one reference."""
        model = self._record.model
        index = self._indexes.empty(self._record)
        index.aim_at(self._lowest_score())
        revision = self._replay(index, model, after=0, until=self._revision)
        index.settle()
        # What changed meanwhile; the little that changes now has to wait for the swap.
        revision = self._replay(index, model, after=revision, until=self._revision)
        with self._applying:
            self._replay(index, model, after=revision, until=self._revision)
            if index.holds_codes_of_erased:
                self._copies_since = self._copies_since or self._store.now()
            if self._record.model != model:  # another index took its place meanwhile
                return
            self._store.reached(Step.BEFORE_REBUILD_SWAP)
            self._index = index
            self._searchable = self._published()
            self._store.reached(Step.AFTER_REBUILD_SWAP)

    def _replay(self, index: GalleryIndex, model: ModelRecord, *, after: int, until: int) -> int:
        """Applies what the log has above `after` up to `until` to an index, and returns how far that one is then."""
        for batch in self._store.changes(self._record.id, after=after):
            due = [each for each in batch if each.seq <= until]
            _apply(due, index, model)
            after = due[-1].seq if due else after
            if len(due) < len(batch):
                break
        return after

    def settle(self, *, checkpoint: Callable[[], None] = lambda: None) -> None:
        """Returns when the rebuilds that were asked for are done. Raises what they failed with, and what `checkpoint` raises."""
        self._rebuilds.settle(checkpoint=checkpoint)

    def _reload_model(self, revision: int) -> None:
        """Takes over what the store says of models now, which may be more than the log has said so far.

        All of it or, where the store fails, nothing.
        """
        record = self._present_record()
        index = self._index if record.model == self._record.model else self._changed_index(record, revision)
        successor = self._successor
        if successor is None or record.succession is None or not successor.is_of(record.succession):
            successor = self._successor_indexes(record, until=revision)
        own_thresholds = self._loaded_own_thresholds(record)
        self._record, self._index, self._successor = record, index, successor
        self._policy, self._own_thresholds = policy_from_json(record.policy), own_thresholds
        self._thresholds = self._thresholds_in_force()
        self._watch = None
        self._searchable = self._published()

    def _present_record(self) -> GalleryRecord:
        """As the store has it. Raises GalleryNotFound, also where there is another one of its name."""
        record = self._store.gallery(self._record.name)
        if record.id != self._record.id:
            raise GalleryNotFound(self._record.name)
        return record

    def _changed_index(self, record: GalleryRecord, revision: int) -> GalleryIndex:
        """The new model's index, which takes the place of the old one's."""
        successor = self._successor
        if successor is not None and successor.succession.model == record.model:
            return successor.new
        index = self._indexes.empty(record)
        self._replay(index, record.model, after=0, until=revision)
        return index

    def _lowest_score(self) -> float:
        """The lowest cosine of the index's model that bears on a decision."""
        return self._own_thresholds.point(self.template_count).lowest_score

    def _aim(self) -> None:
        """Lets the indexes choose their codes for the threshold in force."""
        self._index.aim_at(self._lowest_score())
        if self._successor is not None and self._successor.is_in_force:
            self._successor.new.aim_at(self.operating_point().lowest_score)

    def _successor_indexes(self, record: GalleryRecord, *, until: int) -> SuccessionIndexes | None:
        """Built from the store, while what is there already answers."""
        succession = record.succession
        if succession is None:
            return None
        known = self._successor
        is_same = known is not None and known.succession.created_at == succession.created_at
        new = known.new if known is not None and is_same and known.succession.model == succession.model else None
        successor = SuccessionIndexes(record, succession, store=self._store, indexes=self._indexes, new=new)
        for batch in self._store.changes(record.id, after=0):
            successor.apply([each for each in batch if each.seq <= until])
        return successor

    def needs_saving(self, *, least_changes: int) -> bool:
        """Whether the snapshot is much older than the index, or still holds somebody who is erased."""
        holds_erased = self._erased_revision > self._saved_revision
        return holds_erased or self._revision - self._saved_revision >= least_changes

    @property
    def copies_since(self) -> datetime | None:
        """Since when the snapshot, or a code of the index, may still tell of somebody who is erased; None: nothing does."""
        return self._copies_since

    def holds(self, template_id: int) -> bool:
        """Whether a search may return the template."""
        return self._index.holds(template_id)

    def forget_erased(self) -> None:
        """Takes out of index and snapshot what is left of the erased."""
        with self._applying:
            since, self._copies_since = self._copies_since, None  # whatever is erased from now on is another time's
        try:
            self._index.forget_erased()
            if self._successor is not None:
                self._successor.forget_erased()
            self.save_snapshot()
        except BaseException:
            with self._applying:
                self._copies_since = since
            raise

    def save_snapshot(self) -> None:
        """Writes the index to a file, where it is large enough to be worth it. Searches go on, changes wait for a copy."""
        with self._applying:
            frozen = self._indexes.frozen(self._record, OpenedIndex(self._index, self._revision))
            revision = self._revision
        if frozen is None:
            self._indexes.forget(self._record)
        else:
            self._indexes.write(self._record, frozen)
        # Only now: what could not be written, on a full disk say, is tried again.
        self._saved_revision = revision

    def _reload_policy(self) -> None:
        """Takes over policy and certificate; both or, where the store fails, neither."""
        record = replace(self._record, policy=self._present_record().policy)
        own_thresholds = self._loaded_own_thresholds(record)
        self._record, self._policy, self._own_thresholds = record, policy_from_json(record.policy), own_thresholds
        self._thresholds = self._thresholds_in_force()
        self._watch = None
        self._aim()
        self._searchable = self._published()

    def _thresholds_in_force(self) -> Thresholds:
        """Those of the model in force."""
        succession = self._record.succession
        if succession is None or not succession.is_in_force:
            return self._own_thresholds
        return Thresholds(
            in_force(self._record, succession),
            policy_on_scale(self._policy, succession),
            self._certificate_of(succession.certificate_digest, succession.certificate),
            detector_digest=self._detector_digest,
        )

    def _loaded_own_thresholds(self, record: GalleryRecord) -> Thresholds:
        """Those of the model that every template has a vector of."""
        stored = self._store.certificate(record)
        certificate = None if stored is None else self._certificate_of(stored.digest, stored.document)
        return Thresholds(record, policy_from_json(record.policy), certificate, detector_digest=self._detector_digest)

    def _certificate_of(self, digest: str, document: dict[str, Any] | None) -> Certificate | None:
        try:
            return None if document is None else Certificate.from_json(document, digest=digest)
        except CertificateInvalid as error:
            # The gallery still answers; where its policy needs the promise, it says that there is none.
            logger.warning("gallery %d has no certificate: %s", self._record.id, error)
            return None

    def check_target(self, policy: GalleryPolicy) -> None:
        """Raises CalibrationError where the policy names a target FPIR that cannot be promised now."""
        target = policy.decision.target_fpir
        if target is not None:
            thresholds = Thresholds(
                self._record, policy, self._thresholds.certificate, detector_digest=self._detector_digest
            )
            thresholds.point(self.template_count, target_fpir=target)

    @property
    def certificate(self) -> Certificate | None:
        """The certificate in force; whether it fits the gallery is another question."""
        return self._thresholds.certificate

    def certify(self, certificate: Certificate) -> int:
        """Puts a certificate in force, here and wherever the log is followed; returns the number of the change."""
        revision = self._store.add_certificate(self._record, certificate.digest, certificate.to_json())
        self.catch_up()
        return revision

    def request_rebuild(self) -> int:
        """Has every process that follows the log build its index anew, and returns the number of the change.

        Returns when this process has done so. Raises what was in the way; the old index then goes on answering.
        """
        revision = self._store.request_rebuild(self._record)
        self.catch_up()
        self._rebuilds.finish()
        return revision

    # Changes

    def enrol(self, enrolment: NewEnrolment, *, answer_for: Callable[[Enrolled], RememberedRequest | None]) -> Enrolled:
        """Commits templates, then makes them searchable."""
        (enrolled,) = self.enrol_all([EnrolmentEntry(enrolment, answer_for)])
        return enrolled

    def enrol_all(
        self, entries: Sequence[EnrolmentEntry], *, mark: MarkAfter = no_mark, events: EventsAfter | None = None
    ) -> list[Enrolled]:
        """Commits templates in one transaction, then makes them searchable."""
        enrolled = self._store.enrol_all(self._record, entries, mark=mark, events=events)
        self.catch_up()
        return enrolled

    def update_identity(self, external_id: str, values: dict[str, Any]) -> IdentityRecord:
        """Replaces columns of an identity; its templates stay as they are."""
        record = self._store.update_identity(self._record, external_id, values)
        self.catch_up()
        return record

    def delete_identity(self, external_id: str, *, reason: ErasureReason = ErasureReason.REQUESTED) -> Erased:
        try:
            return self._store.delete_identity(self._record, external_id, reason=reason)
        finally:
            self.catch_up()  # also where there is no receipt yet: the rows may be gone

    def merge_identities(self, external_id: str, *, into: str) -> Merged:
        """Moves the templates of an identity to another one of the same person, and deletes it."""
        merged = self._store.merge_identities(self._record, external_id, into=into)
        self.catch_up()
        return merged

    def delete_template(self, template_id: int) -> Erased:
        try:
            return self._store.delete_template(self._record, template_id)
        finally:
            self.catch_up()

    def templates(self, model: ModelRecord | None = None) -> Templates:
        """Every template with its vector by the gallery's model, or that to which it changes, as the store has it now."""
        model = model or self._record.model
        seen: set[int] = set()
        numbers: list[int] = []
        identities: list[int] = []
        vectors: list[NDArray[np.float32]] = []
        for batch in self._store.changes(self._record.id, after=0):
            for change in batch:
                vector = change.vector_of(model.digest)
                if vector is not None and change.template_id not in seen:
                    seen.add(change.template_id)
                    numbers.append(change.template_id)
                    identities.append(change.identity_id)
                    vectors.append(vector)
        rows = np.stack(vectors) if vectors else np.zeros((0, model.dimension), np.float32)
        return Templates(np.array(numbers, np.int64), np.array(identities, np.int64), rows)

    # Searches

    def rivals(self, templates: Templates) -> list[Hit | None]:
        """For each of these templates the nearest one of another identity; None where there is nobody else."""
        return rivals_in(self._index, templates)

    def is_compared(self, query: Query) -> bool:
        """Whether this probe is due to be searched with the model to which the gallery changes too, to compare both."""
        successor = self._successor
        is_simple = not query.filters and not query.excluded_identity_ids and query.mode is SearchMode.IDENTIFICATION
        return successor is not None and is_simple and successor.can_be_compared and successor.comparisons.is_due()

    def compare(self, found: Identifications, by_new_model: NDArray[np.float32]) -> None:
        """Counts how what the new model finds for the probes (n, dimension) compares with what was answered."""
        successor, record = self._successor, self._record
        if successor is None or record.succession is None or len(by_new_model) != len(found.faces):
            return
        point = operating_point(
            record.succession.model, policy_on_scale(self._policy, record.succession).decision, requested=None
        )
        hits = successor.new.search(by_new_model, limit=2, min_score=point.lowest_score)
        known = {face.candidates[0].identity.id for face in found.faces if face.candidates}
        embedded = self._store.successions.embedded(known)
        successor.comparisons.count(
            [
                agreement(face, each, point, is_embedded=bool(known) and _best_id(face) in embedded)
                for face, each in zip(found.faces, hits, strict=True)
            ]
        )

    def note_comparisons(self) -> None:
        """Puts what was counted into the store."""
        counts = {} if self._successor is None else self._successor.comparisons.drained()
        if counts:
            self._store.successions.note(self._record, counts)

    def operating_point(
        self, *, requested: float | None = None, target_fpir: float | None = None, templates: int | None = None
    ) -> OperatingPoint:
        """The threshold that decides now, or would decide in a gallery of so many templates; see `Thresholds.point`."""
        size = self.template_count if templates is None else templates
        return self._thresholds.point(size, requested=requested, target_fpir=target_fpir)

    def identify(
        self,
        probes: NDArray[np.float32],
        query: Query,
        qualities: Sequence[ProbeQuality] | None = None,
        *,
        model_digest: str = "",
        by_old_model: NDArray[np.float32] | None = None,
    ) -> Identifications:
        """Searches the `probes` (n, dimension), unit vectors of the model in force, among all identities (1:N).

        `by_old_model` are the same probes by the model that was in force before, for a gallery that `asks_both_models`.

        Raises:
            ModelsChanged: the probes are of the model `model_digest`, which is not in force, or those of the old model
                are missing.

        """
        _check(query)
        searchable = self._searchable_by(model_digest)
        point = searchable.thresholds.point(
            len(searchable.index), requested=query.threshold, target_fpir=query.target_fpir
        )
        scope = self._scope(query)
        watch = self._due_watch(scope)
        floor = point.lowest_score if query.mode is SearchMode.IDENTIFICATION else -1.0
        lowest = floor if watch is None else min(floor, watch.floor)
        # Two at least, because a decision may turn on the runner-up.
        ranked = self._found(
            lambda: self._searchable_by(searchable.model.digest).found_by(probes, by_old_model),
            limit=max(2, query.limit),
            min_score=lowest,
            scope=scope,
        )
        if watch is not None:
            watch.note([each[0].score if each else None for each in ranked.candidates], threshold=point.threshold)
        nobody = len(self._index) == 0 or (scope.allowed is not None and not scope.allowed - scope.excluded)
        qualities = qualities or [ProbeQuality.SUFFICIENT] * len(probes)
        faces = tuple(
            _identification(each, point, query, quality, nobody=nobody)
            for each, quality in zip(ranked.candidates, qualities, strict=True)
        )
        return Identifications(faces, point, ranked.revision)

    def _searchable_by(self, model_digest: str) -> _Searchable:
        """What probes of this model are searched in, of any model where it is empty. Raises ModelsChanged."""
        searchable = self._searchable
        if model_digest not in {"", searchable.model.digest}:
            raise ModelsChanged
        return searchable

    def drift(self) -> DriftReport | None:
        """Whether live searches still look as the certificate says; None without one that fits."""
        watch = self._present_watch()
        return None if watch is None else watch.report(threshold=self.operating_point().threshold)

    def _due_watch(self, scope: Scope) -> DriftWatch | None:
        watch = self._present_watch() if scope.is_everybody else None
        return watch if watch is not None and watch.is_due else None

    def _present_watch(self) -> DriftWatch | None:
        table = self._thresholds.fitting_table
        if table is None or self.asks_both_models:  # a certificate tells what one model's scores look like
            return None
        if self._watch is None or not self._watch.is_for(self.template_count):
            self._watch = DriftWatch(table, gallery_templates=max(1, self.template_count))
        return self._watch

    @property
    def guard_threshold(self) -> float:
        """From this cosine of the model that every template has a vector of, two photographs are taken for one person."""
        return self._own_thresholds.point(self.template_count).threshold

    def best_others(
        self, vectors: NDArray[np.float32], external_ids: Sequence[str], *, min_score: float
    ) -> list[Candidate | None]:
        """For each vector the nearest identity other than its own, if it reaches `min_score`.

        `vectors` (n, dimension) are of the model that every template has a vector of.

        Raises:
            ModelChanged: another one takes its place just now.

        """
        model = self._record.model

        def search() -> Search:
            if self._record.model != model:
                raise ModelChanged(self._record.name)
            return partial(self._index.search, vectors)

        found = self._found(search, limit=2, min_score=min_score, scope=Scope()).candidates
        return [
            next((each for each in candidates if each.identity.external_id != own), None)
            for candidates, own in zip(found, external_ids, strict=True)
        ]

    def verify(
        self,
        probe: NDArray[np.float32],
        external_id: str,
        *,
        requested: float | None = None,
        model_digest: str = "",
        by_old_model: NDArray[np.float32] | None = None,
    ) -> Verification:
        """Compares a probe (dimension,) with the templates of one identity (1:1); the best of them counts.

        `by_old_model` is the same probe by the model that was in force before, for a gallery that `asks_both_models`.

        Raises:
            ModelsChanged: as `identify` does.

        """
        searchable = self._searchable_by(model_digest)
        identity = self._store.identity(self._record, external_id)  # raises where there is none
        if searchable.successor is not None and searchable.successor.is_in_force:
            score = searchable.successor.best_score(identity.id, probe, by_old_model)
        else:
            score = self.best_score(probe, external_id)
        if score is None:
            raise InvalidArgument("identity_id", "the identity has no templates; enrol a photograph first")
        return verification(score, searchable.thresholds.point(len(searchable.index), requested=requested))

    def best_score(self, probe: NDArray[np.float32], external_id: str) -> float | None:
        """Cosine of a probe (dimension,) to the best template of an identity; None where it has none."""
        vectors = self._store.vectors(self._record, external_id)
        return max((cosine(vector, probe) for vector in vectors), default=None)

    def _scope(self, query: Query) -> Scope:
        allowed = frozenset(self._store.identity_ids(self._record, query.filters)) if query.filters else None
        excluded = query.excluded_identity_ids
        return Scope(allowed, frozenset(self._store.ids_of(self._record, excluded)) if excluded else frozenset())

    def _found(self, search_now: Callable[[], Search], *, limit: int, min_score: float, scope: Scope) -> _Ranked:
        """`search_now` names the indexes of this moment, for others may have taken their place since the last search."""
        missing: frozenset[int] = frozenset()
        while True:
            revision = self._revision
            with self._store.traced(Work.SEARCH):
                hits = search_now()(limit=limit, min_score=min_score, scope=scope)
            found = frozenset(hit.template_id for each in hits for hit in each)
            known = self._store.identities_of(found)
            vanished, expired = found - known.keys(), self._expired(known)
            if not vanished and not expired:
                return _Ranked(tuple(_candidates(each, known) for each in hits), revision)
            # Search again without them, so that the list is as long as it should be.
            scope = replace(scope, excluded=scope.excluded | expired)
            self.catch_up()
            self._drop(vanished & missing)
            missing |= vanished

    def _drop(self, template_ids: frozenset[int]) -> None:
        """Takes templates out of the indexes that the store does not have although the log does not say so.

        Raises:
            GalleryNotFound: the gallery is gone with all of them.

        """
        if not template_ids:
            return
        self._present_record()
        logger.warning("gallery %d: %d templates have gone past the change log", self._record.id, len(template_ids))
        with self._applying:
            self._index.erase(list(template_ids))
            if self._successor is not None:
                self._successor.erase(list(template_ids))

    def _expired(self, known: dict[int, IdentityRecord]) -> frozenset[int]:
        now = self._store.now()
        return frozenset(identity.id for identity in known.values() if identity.is_expired(now))


def rivals_in(index: TemplateIndex, templates: Templates) -> list[Hit | None]:
    """For each of these templates the nearest one of another identity in an index of the same model."""
    found = index.search(templates.vectors, limit=2)
    return [
        next((hit for hit in hits if hit.identity_id != own), None)
        for hits, own in zip(found, templates.identity_ids.tolist(), strict=True)
    ]


def _best_id(found: Identification) -> int | None:
    return found.candidates[0].identity.id if found.candidates else None


def _apply(changes: Sequence[Change], index: TemplateIndex, model: ModelRecord) -> None:
    add_vectors([each for each in changes if each.op is ChangeOp.ADD], index, digest=model.digest)
    index.erase([each.template_id for each in changes if each.op is ChangeOp.ERASE])


def _check(query: Query) -> None:
    if not 1 <= query.limit <= MAX_LIMIT:
        raise InvalidArgument("limit", f"must lie between 1 and {MAX_LIMIT}")
    if query.threshold is not None and not -1 <= query.threshold <= 1:
        raise InvalidArgument("threshold", "a cosine lies between -1 and 1")


def _candidates(hits: Sequence[Hit], known: dict[int, IdentityRecord]) -> tuple[Candidate, ...]:
    return tuple(Candidate(known[hit.template_id], hit.template_id, hit.score) for hit in hits)


def _identification(
    candidates: tuple[Candidate, ...], point: OperatingPoint, query: Query, quality: ProbeQuality, *, nobody: bool
) -> Identification:
    scores = [each.score for each in candidates]
    # Without a hit at the floor somebody was compared all the same: the answer is "below", not "nobody".
    decision, reason = decide(scores if scores or nobody else [-1.0], point, quality)
    shown = point.lowest_shown if query.mode is SearchMode.IDENTIFICATION else -1.0
    return Identification(decision, reason, tuple(each for each in candidates if each.score >= shown)[: query.limit])


def verification(score: float, point: OperatingPoint) -> Verification:
    """The decision of a 1:1 comparison."""
    return Verification(Decision.MATCH if score >= point.threshold else Decision.NO_MATCH, score, point)


def select_faces(detection: Detection, selection: FaceSelection) -> tuple[FaceCrop, ...]:
    """The faces that are meant.

    Raises:
        NoFace: there is none, and one is needed.
        SeveralFacesFound: there are several, and only one is allowed.

    """
    if selection is FaceSelection.ALL:
        return detection.faces
    if not detection.faces:
        raise NoFace
    if selection is FaceSelection.ONLY and len(detection.faces) > 1:
        raise SeveralFacesFound(tuple(each.face for each in detection.faces))
    return detection.faces[:1]
