from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.search.template_index import Hit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def are_first(numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a number stands for the first time, (n,)."""
    first = np.zeros(len(numbers), np.bool_)
    first[np.unique(numbers, return_index=True)[1]] = True
    return first


def best_of_each_identity(
    template_ids: NDArray[np.int64],
    identity_ids: NDArray[np.int64],
    scores: NDArray[np.float64],
    *,
    min_score: float,
) -> tuple[Hit, ...]:
    """One hit for each identity, its best template; descending score, equal scores in order of template number."""
    order = np.lexsort((template_ids, -scores))
    order = order[scores[order] >= min_score]
    _, first = np.unique(identity_ids[order], return_index=True)
    best = order[np.sort(first)]
    return tuple(
        Hit(template_id, identity_id, score)
        for template_id, identity_id, score in zip(
            template_ids[best].tolist(), identity_ids[best].tolist(), scores[best].tolist(), strict=True
        )
    )
