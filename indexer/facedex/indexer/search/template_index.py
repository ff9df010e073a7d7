"""The seam between a gallery and whatever searches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Hit:
    """The best template of one identity for a probe. `score` is their cosine, -1 to 1."""

    template_id: int
    identity_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Scope:
    """Which identities are searched: those in `allowed` (None: all) that are not in `excluded`."""

    allowed: frozenset[int] | None = None
    excluded: frozenset[int] = frozenset()

    @property
    def is_everybody(self) -> bool:
        return self.allowed is None and not self.excluded


EVERYBODY = Scope()


class TemplateIndex(Protocol):
    """Finds the identities nearest to a probe.

    Results equal an exhaustive search over the templates that were added and not erased. Searches may run in any number
    of threads while one thread adds or erases; a search sees each template wholly or not at all.
    """

    @property
    def dimension(self) -> int: ...

    def __len__(self) -> int:
        """Number of templates that a search may return."""
        ...

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Adds templates; `vectors` is (n, dimension). Numbers already present, and repeated ones, are skipped."""
        ...

    def erase(self, template_ids: Sequence[int]) -> None:
        """Erases templates; numbers that are not present are skipped."""
        ...

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        """The `limit` best identities for each of the `probes` (n, dimension), by their best template.

        In descending score, equal scores in order of enrolment; none below `min_score`.
        """
        ...
