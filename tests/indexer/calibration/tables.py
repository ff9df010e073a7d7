"""Small calibrations of people who are drawn."""

from __future__ import annotations

import numpy as np
from tests.indexer.calibration.populations import TEMPLATES, unit, unrelated

from facedex.indexer.calibration.certificate import Certificate, Dataset, Source, Subject
from facedex.indexer.calibration.operating_table import OperatingTable
from facedex.indexer.calibration.promise import Promise
from facedex.indexer.calibration.scores import Searches, searches_of

SUBJECT = Subject("embedder", "ab" * 32, "detector", "cd" * 32, {"min_size_px": 32.0})
DATASET = Dataset(Source.PHOTOGRAPHS, "ef" * 32, 600, 900, 7, 1.0)


def drawn_searches(*, seed: int = 0, strangers: int = 500, noise: float = 0.9) -> Searches:
    """Strangers, and mates whose photographs differ by `noise`, in a gallery of `TEMPLATES`."""
    rng = np.random.default_rng(seed)
    gallery = unrelated(rng, TEMPLATES)
    mates = unit(gallery + noise * unrelated(rng, TEMPLATES))
    probes = np.concatenate([unrelated(rng, strangers), mates])
    who = np.concatenate([TEMPLATES + np.arange(strangers), np.arange(TEMPLATES)])
    return searches_of(gallery, np.arange(TEMPLATES), probes, who)


def certificate(searches: Searches) -> Certificate:
    table = OperatingTable.of(Promise.of(searches.non_mated), searches.mated)
    return Certificate("2026-01-01T00:00:00+00:00", "facedex 0", SUBJECT, DATASET, {"start": 0.25}, table)
