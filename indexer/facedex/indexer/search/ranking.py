from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.search.template_index import Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
