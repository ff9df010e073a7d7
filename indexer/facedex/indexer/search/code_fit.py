"""How well codes stand for a gallery's own vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.search.segment import Rows, Segment

if TYPE_CHECKING:
    from facedex.indexer.search.codebook import Codebook

SAMPLE_ROWS = 4_096
SAMPLE_PROBES = 64
SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class CodeFit:
    """An approximate score is `gain` × cosine + noise; `noise` is its standard deviation."""

    gain: float
    noise: float

    def worse(self, other: CodeFit) -> CodeFit:
        """What holds for both."""
        return CodeFit(min(self.gain, other.gain), max(self.noise, other.noise))

    def least_approximate(self, cosine: float, *, deviations: float) -> float:
        """An approximate score that a row of this cosine, or a higher one, hardly falls below."""
        return self.gain * cosine - deviations * self.noise


def measured_fit(rows: Rows, codebook: Codebook) -> CodeFit:
    """The fit on a sample of rows, each compared with each of some others and with itself."""
    rng = np.random.default_rng(SEED)
    sample = rows.taken(rng.permutation(len(rows))[:SAMPLE_ROWS])
    probes = sample.vectors[:SAMPLE_PROBES].astype(np.float32)
    approximate, slots = Segment.encoded(sample, codebook).nearest(probes, len(sample), None)
    exact = np.take_along_axis(probes @ sample.vectors.astype(np.float32).T, slots, axis=1)
    own = approximate[slots == np.arange(len(probes))[:, None]]
    gain = float(own.mean())
    # The spread between people counts as noise: a row of low gain is as easily missed as an unlucky one.
    residual = (approximate - gain * exact)[slots >= 0]
    return CodeFit(gain, float(max(residual.std(), own.std())))
