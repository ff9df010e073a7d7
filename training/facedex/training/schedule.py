"""How fast a network learns over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """A linear rise, and then half a cosine down to almost nothing (Loshchilov & Hutter, ICLR 2017)."""

    steps: int
    peak: float
    warmup_share: float = 0.05
    last_share: float = 0.005

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        share = step / self.steps
        if share < self.warmup_share:
            return self.peak * (step + 1) / (self.warmup_share * self.steps + 1)
        fallen = (1 + math.cos(math.pi * (share - self.warmup_share) / (1 - self.warmup_share))) / 2
        return self.peak * (self.last_share + (1 - self.last_share) * fallen)
