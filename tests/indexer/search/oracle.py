"""What a search must return, by comparing everything with everything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.search.template_index import Hit, Scope

DIMENSION = 64


def unit_vectors(count: int, *, seed: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    # As the store keeps them: in half precision, so that no index can lose digits that another one has.
    return np.asarray(unit.astype(np.float16), np.float32)


class Oracle:
    """What a search must return, by comparing everything with everything in plain Python."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def add(self, template_ids: list[int], identity_ids: list[int], vectors: NDArray[np.float32]) -> None:
        for template_id, identity_id, vector in zip(template_ids, identity_ids, vectors, strict=True):
            self.rows.setdefault(template_id, (identity_id, vector))

    def erase(self, template_ids: list[int]) -> None:
        for template_id in template_ids:
            self.rows.pop(template_id, None)

    def search(self, probe: NDArray[np.float32], *, limit: int, min_score: float, scope: Scope) -> tuple[Hit, ...]:
        hits: list[Hit] = []
        for template_id, (identity_id, vector) in self.rows.items():
            allowed = scope.allowed is None or identity_id in scope.allowed
            score = float(np.round(np.dot(vector.astype(np.float64), probe.astype(np.float64)), 7))
            if allowed and identity_id not in scope.excluded and score >= min_score:
                hits.append(Hit(template_id, identity_id, min(1.0, max(-1.0, score))))
        hits.sort(key=lambda hit: (-hit.score, hit.template_id))
        best: dict[int, Hit] = {}
        for hit in hits:
            best.setdefault(hit.identity_id, hit)
        return tuple(best.values())[:limit]
