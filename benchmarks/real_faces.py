"""Faces of real photographs: mated pairs of some people among as many others as a benchmark asks for."""

from __future__ import annotations

import numpy as np
from benchmarks import open_set
from benchmarks.vectors import CHUNK_ROWS, Faces, unit
from numpy.typing import NDArray

MIXED_OF = 3


def among_others(
    people: open_set.Faces, others: open_set.Faces, *, template_count: int, probe_count: int, seed: int = 1
) -> Faces:
    """The first photograph of each of the people is a template, their further ones are mated probes.

    The templates are filled up with the `others`, and then with mixes of three of them, which resemble real people as
    much as strangers do and belong to nobody who is searched for.
    """
    rng = np.random.default_rng(seed)
    first = np.unique(people.identities, return_index=True)[1]
    probes = np.setdiff1d(np.arange(len(people.identities)), first)[:probe_count]
    templates = np.empty((template_count, people.vectors.shape[1]), np.float16)
    real = np.concatenate([people.vectors[first], others.vectors])[:template_count]
    templates[: len(real)] = real
    for start in range(len(real), template_count, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, template_count)
        templates[start:stop] = _mixed(others, stop - start, rng)
    return Faces(templates, people.vectors[probes], people.identities[probes])


def _mixed(others: open_set.Faces, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    chosen = rng.integers(len(others.vectors), size=(MIXED_OF, count))
    return unit(others.vectors[chosen].sum(axis=0))
