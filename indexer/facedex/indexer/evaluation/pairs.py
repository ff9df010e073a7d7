"""Verification by the protocol of Labeled Faces in the Wild: pairs in folds, listed in a `pairs.txt`.

The first line is the number of folds and of pairs of each kind in a fold; then, fold by fold, the mated pairs
(`NAME NUMBER NUMBER`) and the non-mated ones (`NAME NUMBER NAME NUMBER`), separated by tabs (Huang et al., UMass Amherst
TR 07-49, 2007). Photograph 7 of NAME is the file `NAME/NAME_0007.jpg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from facedex.indexer.calibration.metrics import best_accuracy, tar_at_far
from facedex.indexer.calibration.scores import PairScores
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.folder import PHOTOGRAPH_SUFFIXES, Photograph

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from facedex.indexer.evaluation.evaluation import Faces

FAR: Final = 1e-3
"""False accept rate at which the true accept rate is told; LFW has 3 000 non-mated pairs, so three of them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs of a fold that are compared."""

    fold: int
    first: Photograph
    second: Photograph

    @property
    def is_mated(self) -> bool:
        return self.first.identity_id == self.second.identity_id


@dataclass(frozen=True, slots=True)
class PairEvaluation:
    """What the protocol reports. Accuracies are of each fold with the threshold that is best on the others.

    `area` is that under the ROC curve: the chance that a mated pair scores higher than a non-mated one. `failed` pairs had
    a photograph without a face; they score lowest.
    """

    pairs: int
    failed: int
    accuracy: float
    standard_deviation: float
    threshold: float
    tar: float
    area: float


def read_pairs(listed: Path, *, people: Path) -> tuple[Pair, ...]:
    """The pairs of a `pairs.txt` over a folder a person.

    Raises:
        InvalidArgument: a line is no pair, or names a photograph that is not there; the message names the line.

    """
    lines = listed.read_text(encoding="utf-8").splitlines()
    folds, pairs_per_kind = _sizes(lines)
    numbered = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if len(numbered) != 2 * folds * pairs_per_kind:
        told = f"{folds} folds of {pairs_per_kind} mated and as many non-mated pairs"
        raise InvalidArgument("--pairs", f"holds {len(numbered)} pairs where its first line tells of {told}")
    return tuple(
        _pair(line, fold=place // (2 * pairs_per_kind), number=number, people=people)
        for place, (number, line) in enumerate(numbered)
    )


def photographs_in(pairs: Iterable[Pair]) -> list[Photograph]:
    """Each photograph once."""
    return list(dict.fromkeys(photograph for pair in pairs for photograph in (pair.first, pair.second)))


def evaluate_pairs(pairs: Sequence[Pair], faces: Faces) -> PairEvaluation:
    """The protocol's figures from the cosines of all pairs.

    Raises:
        NoSearches: all pairs are mated, or all are non-mated.
        ScoresInvalid: there is only one fold.

    """
    scores = np.array([_cosine(pair, faces) for pair in pairs])
    mated = np.array([pair.is_mated for pair in pairs])
    folds = best_accuracy(scores, mated, np.array([pair.fold for pair in pairs]))
    split = PairScores(scores[mated], scores[~mated])
    return PairEvaluation(
        pairs=len(pairs),
        failed=int(np.isneginf(scores).sum()),
        accuracy=folds.mean,
        standard_deviation=float(folds.accuracies.std(ddof=1)),
        threshold=float(folds.thresholds.mean()),
        tar=tar_at_far(split, far=FAR),
        area=area_under_roc(split),
    )


def area_under_roc(scores: PairScores) -> float:
    """The chance that a mated pair scores higher than a non-mated one, equal scores counting half (Mann, Whitney, 1947)."""
    below = np.searchsorted(np.sort(scores.non_mated), scores.mated, side="left")
    not_above = np.searchsorted(np.sort(scores.non_mated), scores.mated, side="right")
    return float((below + not_above).mean() / (2 * len(scores.non_mated)))


def _sizes(lines: Sequence[str]) -> tuple[int, int]:
    words = lines[0].split() if lines else []
    if len(words) != 2 or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InvalidArgument("--pairs", "line 1 must be the number of folds and of pairs of each kind: 10 300")
    return int(words[0]), int(words[1])


def _pair(line: str, *, fold: int, number: int, people: Path) -> Pair:
    match line.split():
        case [name, first, second] if first.isdecimal() and second.isdecimal():
            named = ((name, first), (name, second))
        case [name, first, other, second] if first.isdecimal() and second.isdecimal():
            named = ((name, first), (other, second))
        case _:
            raise InvalidArgument("--pairs", f"line {number} is no pair; write NAME 1 2, or NAME 1 OTHER 2")
    return Pair(fold, *(_photograph(name, int(take), number=number, people=people) for name, take in named))


def _photograph(name: str, take: int, *, number: int, people: Path) -> Photograph:
    stem = people / name / f"{name}_{take:04d}"
    found = [path for suffix in sorted(PHOTOGRAPH_SUFFIXES) if (path := stem.with_name(stem.name + suffix)).is_file()]
    if not found:
        raise InvalidArgument("--pairs", f"line {number} names {stem}, which is not there; is it the same data set?")
    return Photograph(name, found[0])


def _cosine(pair: Pair, faces: Faces) -> float:
    first, second = (faces.vectors.get(photograph) for photograph in (pair.first, pair.second))
    return float("-inf") if first is None or second is None else float(first @ second)
