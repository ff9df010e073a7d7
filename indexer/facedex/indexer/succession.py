"""The indexes of a gallery that changes its model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.comparison import Comparisons
from facedex.indexer.policy import policy_from_json, policy_to_json
from facedex.indexer.score_scale import ScoreScale
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope
from facedex.indexer.store.records import ChangeOp
from facedex.indexer.vectors import cosine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.indexes import Indexes
    from facedex.indexer.policy import GalleryPolicy
    from facedex.indexer.search.gallery_index import GalleryIndex
    from facedex.indexer.search.template_index import TemplateIndex
    from facedex.indexer.store.records import Change, GalleryRecord, Succession
    from facedex.indexer.store.store import Store


class SuccessionIndexes:
    """The new model's index, and, while it is in force, one of those who are known to the old model alone.

    The gallery's own index, of the old model, goes on beside them, so that the way back needs no building.
    """

    def __init__(
        self,
        record: GalleryRecord,
        succession: Succession,
        *,
        store: Store,
        indexes: Indexes,
        new: GalleryIndex | None = None,
    ) -> None:
        self._record = record
        self._store = store
        self.succession = succession
        self.comparisons = Comparisons()
        self._scale = None if succession.scale is None else ScoreScale.from_json(succession.scale)
        self.new = new or indexes.empty(in_force(record, succession))
        self._rest = indexes.empty(record, part="rest") if succession.is_in_force else None

    @property
    def rest_count(self) -> int:
        """Templates that only the old model can find."""
        return 0 if self._rest is None else len(self._rest)

    @property
    def scale(self) -> ScoreScale | None:
        return self._scale

    @property
    def can_be_compared(self) -> bool:
        """Whether the new model's answers to live probes mean something and are not given yet."""
        return self._scale is not None and self._rest is None

    @property
    def is_in_force(self) -> bool:
        return self._rest is not None

    def is_of(self, succession: Succession) -> bool:
        """Whether these indexes serve what the store says now, up to the counts of comparisons."""
        return replace(self.succession, comparisons=succession.comparisons) == succession

    def forget_erased(self) -> None:
        """Takes out what is left of the erased."""
        for index in (self.new, self._rest):
            if index is not None:
                index.forget_erased()

    def deliver(self) -> None:
        """Sends what a vector engine does not have yet, where there is one."""
        for index in (self.new, self._rest):
            if index is not None:
                index.deliver()

    # The change log

    def apply(self, changes: Sequence[Change]) -> None:
        """What changed, in both indexes. Changes that are in them already do no harm."""
        add_vectors(changes, self.new, digest=self.succession.model.digest)
        self.erase([each.template_id for each in changes if each.op is ChangeOp.ERASE])
        if self._rest is not None:
            self._settle(changes, self._rest)

    def erase(self, template_ids: Sequence[int]) -> None:
        """Takes templates out of both indexes, where they are in them."""
        self.new.erase(template_ids)
        if self._rest is not None:
            self._rest.erase(template_ids)

    def _settle(self, changes: Sequence[Change], rest: GalleryIndex) -> None:
        """Puts those whom the changes concern where they belong now: the store may be ahead of the log's place."""
        ops = {ChangeOp.ADD, ChangeOp.EMBED, ChangeOp.ERASE}
        touched = {each.identity_id for each in changes if each.op in ops} - {0}
        embedded = self._store.successions.embedded(touched)
        for numbers in self._store.successions.templates_of(embedded).values():
            rest.erase(numbers)
        old = [each for each in changes if each.identity_id not in embedded]
        add_vectors(old, rest, digest=self._record.model.digest)
        # Whoever lost the only template with a new vector is found by the old ones again.
        for identity_id in {each.identity_id for each in old if each.op is ChangeOp.ERASE} - {0}:
            faces = self._store.successions.old_faces(self._record, identity_id)
            if faces:
                rest.add(list(faces), [identity_id] * len(faces), np.stack(list(faces.values())))

    # Searches

    def best_score(self, identity_id: int, new: NDArray[np.float32], old: NDArray[np.float32] | None) -> float | None:
        """Of a probe (dimension,) by both models to one identity, on the scale of the new one; None: it has no templates."""
        vectors = self._store.successions.vectors(self._record, identity_id)
        if vectors:
            return max(cosine(each, new) for each in vectors.values())
        faces = self._store.successions.old_faces(self._record, identity_id)
        if not faces or old is None or self._scale is None:
            return None
        return self._scale.to_new(max(cosine(each, old) for each in faces.values()))

    def search(
        self,
        new: NDArray[np.float32],
        old: NDArray[np.float32] | None,
        *,
        limit: int,
        min_score: float,
        scope: Scope = EVERYBODY,
    ) -> list[tuple[Hit, ...]]:
        """The best identities for probes (n, dimension) by both models, on the scale of the new one."""
        found = self.new.search(new, limit=limit, min_score=min_score, scope=scope)
        if self._rest is None or self._scale is None or old is None or not len(self._rest):
            return found
        lowest = self._scale.to_old(min_score)
        others = self._rest.search(old, limit=limit, min_score=lowest, scope=scope)
        converted = [[replace(hit, score=self._scale.to_new(hit.score)) for hit in hits] for hits in others]
        return [_merged(first, second, limit) for first, second in zip(found, converted, strict=True)]


def in_force(record: GalleryRecord, succession: Succession) -> GalleryRecord:
    """The gallery as it is when the new model answers."""
    policy = policy_on_scale(policy_from_json(record.policy), succession)
    return replace(record, model=succession.model, policy=policy_to_json(policy))


def policy_on_scale(policy: GalleryPolicy, succession: Succession) -> GalleryPolicy:
    """The policy with cosines of the new model in the place of those of the old one."""
    if succession.scale is None:
        return policy
    scale, decision = ScoreScale.from_json(succession.scale), policy.decision
    cosine, review = (
        None if each is None else scale.to_new(each) for each in (decision.cosine, decision.review_cosine)
    )
    return replace(policy, decision=replace(decision, cosine=cosine, review_cosine=review))


def _merged(first: Sequence[Hit], second: Sequence[Hit], limit: int) -> tuple[Hit, ...]:
    best: dict[int, Hit] = {}
    for hit in (*first, *second):  # somebody who moves over just now may be in both
        known = best.get(hit.identity_id)
        if known is None or known.score < hit.score:
            best[hit.identity_id] = hit
    return tuple(sorted(best.values(), key=lambda hit: (-hit.score, hit.template_id))[:limit])


def add_vectors(changes: Sequence[Change], index: TemplateIndex, *, digest: str) -> None:
    """Adds what the changes have of the model with this digest.

    An addition still has its vector only if nothing later erased it, so the order within a batch does not matter. Vectors
    of another model are passed over: the log tells further on that the gallery changed it.
    """
    vectors = [(each, each.vector_of(digest)) for each in changes]
    added = [(each, vector) for each, vector in vectors if vector is not None]
    if added:
        index.add(
            [change.template_id for change, _ in added],
            [change.identity_id for change, _ in added],
            np.stack([vector for _, vector in added]),
        )
