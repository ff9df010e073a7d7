"""How well codes stand for a gallery's own vectors, measured with planted mates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facedex.indexer.search.codebook import Codebook

# The share of mates at the score floor that the scan may leave behind.
TARGET_LOSS = 1e-4
# The same where the floor is the last place of a list: there, many rows lie close to it.
LIST_LOSS = 1e-6
# Mates are planted in groups; each group is a small index of its own. One half measures the fit, the other checks it.
GROUPS, GROUP_ROWS = 32, 256
# Of 4 096 checked mates, 0.4 are expected to be missed at the target; more than this happens once in 100 times.
TOLERATED_MISSES = 2
SEED = 20_260_101
# Copies of one vector have no spread.
LEAST_SPREAD = 1e-6
# Below this cosine, what a code adds to a mate's score is all noise.
LEAST_PLANTED_COSINE = 0.25


@dataclass(frozen=True, slots=True)
class CodeFit:
    """An approximate score is `gain` × cosine + noise, whose standard deviation is `noise`.

    Approximate scores of different people have the mean `centre` and the standard deviation `spread`. `missed` of the
    `checked` planted mates scored less than `least_approximate` says.
    """

    gain: float
    noise: float
    centre: float
    spread: float
    checked: int = 0
    missed: int = 0

    @property
    def keeps_target(self) -> bool:
        """Whether mates at the score floor are found as often as they have to be."""
        return self.missed <= TOLERATED_MISSES

    def least_approximate(self, cosine: float, *, loss: float = TARGET_LOSS) -> float:
        """An approximate score that a row of this cosine, or a higher one, falls below less often than the `loss`."""
        # Codes shrink a cosine towards 0, from either side.
        return (self.gain * cosine if cosine > 0 else cosine) + NormalDist().inv_cdf(loss) * self.noise

    def share_reaching(self, cosine: float) -> float:
        """Share of other people's rows that the scan cannot tell from a row of this cosine."""
        return 0.5 * math.erfc((self.least_approximate(cosine) - self.centre) / (self.spread * math.sqrt(2)))


def measured_fit(vectors: NDArray[np.floating[Any]], codebook: Codebook, *, mate_cosine: float) -> CodeFit:
    """The fit of a codebook to a gallery's `vectors` (n, dimension), for mates at a cosine."""
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(SEED)
    cosine = max(mate_cosine, LEAST_PLANTED_COSINE)
    groups = [_planted(vectors, codebook, rng, cosine) for _ in range(GROUPS)]
    measuring, checking = groups[::2], groups[1::2]
    fit = _fit(measuring, cosine)
    mated = np.concatenate([group.mated for group in checking])
    missed = int((mated < fit.least_approximate(cosine)).sum())
    return replace(fit, checked=len(mated), missed=missed)


@dataclass(frozen=True, slots=True)
class _Group:
    """Approximate scores: of mates (n,) and of people who have nothing to do with each other (n × (n − 3),)."""

    mated: NDArray[np.float32]
    others: NDArray[np.float32]


def _planted(vectors: NDArray[np.floating[Any]], codebook: Codebook, rng: np.random.Generator, cosine: float) -> _Group:
    rows = vectors[rng.choice(len(vectors), GROUP_ROWS, replace=len(vectors) < GROUP_ROWS)].astype(np.float32)
    index: Any = codebook.empty_index()
    index.add(rows)
    scores = _scores(index, _mates(rows, cosine))
    own = np.eye(GROUP_ROWS, dtype=np.bool_)
    return _Group(scores[own], scores[~(own | np.roll(own, 1, axis=1) | np.roll(own, -1, axis=1))])


def _scores(index: Any, probes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Approximate scores (probes, rows); −1 for a row that the scan left out, which is a reason not to trust it."""
    found, slots = index.search(probes, index.ntotal)
    scores = np.full((len(probes), index.ntotal + 1), -1.0, np.float32)
    np.put_along_axis(scores, slots, np.maximum(found, -1.0), axis=1)  # slot −1, for nothing found, is the last column
    return scores[:, :-1]


def _mates(rows: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    """A unit vector at a cosine from each row, on the way to its neighbour in the list."""
    others = np.roll(rows, 1, axis=0)
    across = others - (others * rows).sum(axis=1, keepdims=True) * rows
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    return np.asarray(cosine * rows + math.sqrt(1 - cosine**2) * across, np.float32)


def _fit(groups: list[_Group], cosine: float) -> CodeFit:
    mated = np.concatenate([group.mated for group in groups])
    others = np.concatenate([group.others for group in groups])
    return CodeFit(
        gain=float(mated.mean()) / cosine,
        noise=float(mated.std()),
        centre=float(others.mean()),
        spread=max(float(others.std()), LEAST_SPREAD),
    )
