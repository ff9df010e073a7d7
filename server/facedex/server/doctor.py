"""What detects and embeds here: found, timed and compared with the processor, so that nobody has to believe it."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.assembly import runtime_on
from facedex.indexer.devices import DeviceChoice, Devices, chosen_devices
from facedex.indexer.errors import DeviceUnusable
from facedex.indexer.vision.errors import ModelError
from facedex.indexer.vision.models import ModelFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from facedex.indexer.devices import Hardware
    from facedex.indexer.vision.embedder import Embedder

PACKAGES = ("facedex", "numpy", "onnxruntime", "faiss-cpu", "torch")
FACES = 64
# What a network in 8 bits may come down to on noise, see vision/accelerated/network.py; others were held to more when opened.
LEAST_COSINE = 0.998


@dataclass(frozen=True, slots=True)
class Trial:
    """The embedder on the processor and on the devices, both measured here and now, on the same crops of noise."""

    processor_faces_per_second: float
    """Of one core."""
    device_faces_per_second: float
    least_cosine: float
    """Between the two vectors of a crop."""

    @property
    def problem(self) -> str:
        """Empty where the device is used and answers alike."""
        if self.least_cosine < LEAST_COSINE:
            return f"the device's vectors differ from the processor's (cosine {self.least_cosine:.5f})"
        if self.device_faces_per_second <= self.processor_faces_per_second:
            return "the device is no faster than one core: it is not doing the work, or something else uses it"
        return ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found. `problems` is empty where all is well."""

    asked: DeviceChoice
    devices: Devices
    versions: dict[str, str | None]
    models: dict[str, str]
    """SHA-256 by name."""
    trial: Trial | None
    """None where no device was chosen."""
    problems: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """For programs."""
        trial = self.trial
        return {
            "asked": self.asked.value,
            "used": list(self.devices.names) or ["cpu"],
            "why": self.devices.why,
            "gpus": [
                {"device": gpu.device, "name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in self.devices.gpus
            ],
            "versions": self.versions,
            "models": self.models,
            "trial": None
            if trial is None
            else {
                "processor_faces_per_second": round(trial.processor_faces_per_second, 1),
                "device_faces_per_second": round(trial.device_faces_per_second, 1),
                "least_cosine": round(trial.least_cosine, 6),
            },
            "problems": list(self.problems),
        }


def diagnose(
    choice: DeviceChoice,
    *,
    data: Path,
    detector: str,
    embedder: str,
    hardware: Hardware,
    clock: Callable[[], float] = time.perf_counter,
) -> Diagnosis:
    """Looks at devices and models, and has both embed the same crops."""
    problems: list[str] = []
    try:
        devices = chosen_devices(choice, hardware)
    except DeviceUnusable as problem:
        devices = Devices((), "nothing else is used instead")
        problems.append(str(problem))
    folder = ModelFolder(data / "models")
    models, trial = dict[str, str](), None
    try:
        models = {name: folder.manifest(name).digest for name in (detector, embedder)}
        folder.load_detector(detector).try_out()
        folder.load_embedder(embedder).try_out()
        if devices.gpus:
            on_devices = ModelFolder(data / "models", runtime_on(devices))
            on_devices.load_detector(detector).try_out()
            trial = _tried(folder.load_embedder(embedder), on_devices.load_embedder(embedder), clock)
            problems += [trial.problem] if trial.problem else []
    except ModelError as problem:
        problems.append(str(problem))
    return Diagnosis(choice, devices, _versions(), models, trial, tuple(problems))


def _tried(processor: Embedder, device: Embedder, clock: Callable[[], float]) -> Trial:
    width, height = processor.size
    crops = list(np.random.default_rng(1).integers(0, 256, (FACES, height, width, 3)).astype(np.uint8))
    device.embed_together(crops)  # the first run of all is slower
    started = clock()
    expected = np.stack([processor.embed(crop) for crop in crops])
    between = clock()
    actual = device.embed_together(crops)
    ended = clock()
    return Trial(FACES / (between - started), FACES / (ended - between), float((expected * actual).sum(axis=1).min()))


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
