"""What the model to which a gallery changes says of live probes, beside the one that answers."""

from __future__ import annotations

import enum
import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING

from facedex.indexer.identification import Decision, decide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facedex.indexer.identification import Identification, OperatingPoint
    from facedex.indexer.search.template_index import Hit

# One probe in so many is embedded by both models.
EVERY = 10


class Agreement(enum.Enum):
    """How two models compare on one probe. Values stand in the store."""

    SAME_PERSON = "same-person"
    BOTH_NOBODY = "both-nobody"
    OTHER_PERSON = "other-person"
    ONLY_OLD = "only-old"
    """The old model finds somebody who has a vector of the new one, which finds nobody."""
    ONLY_NEW = "only-new"
    NOT_EMBEDDED = "not-embedded"
    """The old model finds somebody who has no vector of the new one yet."""


class Comparisons:
    """Counts agreements in one process until they are noted in the store. Any number of threads may use it."""

    def __init__(self, *, every: int = EVERY) -> None:
        self._every = every
        self._probes = itertools.count(1)
        self._counts: Counter[Agreement] = Counter()
        self._counting = threading.Lock()

    def is_due(self) -> bool:
        return next(self._probes) % self._every == 0

    def count(self, agreements: Sequence[Agreement]) -> None:
        with self._counting:
            self._counts.update(agreements)

    def drained(self) -> dict[str, int]:
        """What was counted since the last call."""
        with self._counting:
            counts, self._counts = self._counts, Counter()
        return {each.value: count for each, count in counts.items()}


def agreement(old: Identification, new: Sequence[Hit], point: OperatingPoint, *, is_embedded: bool) -> Agreement:
    """Of the answer that was given and what the new model finds; `is_embedded`: whom the old one found can be found."""
    decision, _ = decide([each.score for each in new], point)
    finds_new = decision is Decision.MATCH
    if old.decision is not Decision.MATCH:
        return Agreement.ONLY_NEW if finds_new else Agreement.BOTH_NOBODY
    if not is_embedded:
        return Agreement.NOT_EMBEDDED
    if not finds_new:
        return Agreement.ONLY_OLD
    is_same = old.candidates[0].identity.id == new[0].identity_id
    return Agreement.SAME_PERSON if is_same else Agreement.OTHER_PERSON
