"""Thresholds that state their error rate."""

from dataclasses import dataclass
from datetime import datetime

from facedex.client.identification import OperatingPoint


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a calibration promises and what this rests on: canonical JSON, whose SHA-256 is the `digest`."""

    digest: str
    create_time: datetime
    document: str


@dataclass(frozen=True, slots=True)
class ResolvedThreshold:
    """A threshold that keeps a target.

    `fnir` is the share of enrolled people's searches that miss there: lower end, measured value and upper end of the 95 %
    interval; None where the calibration had no mated searches.
    """

    operating_point: OperatingPoint
    fnir: tuple[float, float, float] | None
