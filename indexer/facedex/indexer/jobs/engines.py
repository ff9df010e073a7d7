"""What looks at many photographs: threads of this process, or a Ray. The one place that decides it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from facedex.indexer.devices import CALLERS_PER_CORE, DeviceChoice
from facedex.indexer.vision.workbench import available_cores

if TYPE_CHECKING:
    from collections.abc import Generator

    from facedex.indexer.eyes import Eyes, OwnEyes
    from facedex.indexer.galleries import Galleries


class EngineKind(StrEnum):
    """What the operator asked for."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Engine:
    """`ray_address` is that of a Ray that runs already (`HOST:PORT`); None: one is started for this work, on this machine."""

    kind: EngineKind = EngineKind.LOCAL
    ray_address: str | None = None
    device: DeviceChoice = DeviceChoice.CPU


@dataclass(frozen=True, slots=True)
class Sight:
    """Eyes, and how many are to ask them at a time so that none of them waits."""

    eyes: Eyes
    callers: int


@contextmanager
def sight(engine: Engine, galleries: Galleries, eyes: OwnEyes) -> Generator[Sight]:
    """Sight with the models of these eyes.

    Raises:
        EngineUnusable: there is no Ray that could look.

    """
    if engine.kind is EngineKind.LOCAL:
        yield Sight(eyes, _callers(eyes))
        return
    from facedex.indexer.jobs.ray_crew import ray_sight  # noqa: PLC0415  (most installations have no Ray)

    with ray_sight(galleries.recipe(eyes.pipelines), address=engine.ray_address, device=engine.device) as seen:
        yield seen


def _callers(eyes: OwnEyes) -> int:
    """Who waits for a device holds no core; the workbench shares out the cores all the same."""
    pipeline, *_ = eyes.pipelines
    return available_cores() * (1 if pipeline.embedder.most_at_once == 1 else CALLERS_PER_CORE)
