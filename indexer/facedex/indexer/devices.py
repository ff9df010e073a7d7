"""Which device does the work: chosen once at start, proved to work, and told to whoever asks."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from facedex.indexer.errors import DeviceUnusable


class DeviceChoice(StrEnum):
    """What the operator asked for."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


CALLERS_PER_CORE = 4


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device that torch can use."""

    device: str
    """As torch calls it: `cuda:0`."""
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Devices:
    """What was chosen; no GPU: the processor does everything."""

    gpus: tuple[Gpu, ...]
    why: str
    """For people: what made the choice."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(gpu.device for gpu in self.gpus)

    @property
    def callers_per_core(self) -> int:
        """Threads for each core that looks at photographs: who waits for a device holds no core."""
        return CALLERS_PER_CORE if self.gpus else 1

    def __str__(self) -> str:
        used = ", ".join(f"{gpu.device} ({gpu.name})" for gpu in self.gpus) or "cpu"
        return f"{used}: {self.why}"


PROCESSOR = Devices((), "as asked for")


class Hardware(Protocol):
    """What this machine has. Tests bring another one."""

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs, at least one. Raises DeviceUnusable with the reason why there is none."""
        ...

    def probe(self, gpu: Gpu) -> None:
        """Has it compute something. Raises DeviceUnusable where that fails or is wrong."""
        ...


class TorchHardware:
    """What torch finds."""

    def gpus(self) -> tuple[Gpu, ...]:
        torch = _torch()
        if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
            raise DeviceUnusable(
                f"torch {torch.__version__} is built without CUDA", "install a build of torch that has it"
            )
        if not torch.cuda.is_available():
            raise DeviceUnusable(
                f"torch {torch.__version__} with CUDA {torch.version.cuda} finds no GPU",
                "look at what nvidia-smi says, and at CUDA_VISIBLE_DEVICES",
            )
        found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return tuple(Gpu(f"cuda:{number}", each.name, each.total_memory) for number, each in enumerate(found))

    def probe(self, gpu: Gpu) -> None:
        torch = _torch()
        try:
            ones = torch.ones((64, 64), device=gpu.device)
            total = float((ones @ ones).sum())
        except RuntimeError as problem:
            first_line = (str(problem).splitlines() or ["no reason given"])[0]
            raise DeviceUnusable(f"{gpu.device} ({gpu.name}) cannot compute: {first_line}", PROBE_ADVICE) from problem
        if total != 64.0**3:
            raise DeviceUnusable(f"{gpu.device} ({gpu.name}) computes wrongly", PROBE_ADVICE)


PROBE_ADVICE = "compare the driver's version with the CUDA that torch was built for"


def chosen_devices(choice: DeviceChoice, hardware: Hardware) -> Devices:
    """The devices to use.

    Raises:
        DeviceUnusable: CUDA was asked for, and cannot be used.

    """
    if choice is DeviceChoice.CPU:
        return PROCESSOR
    try:
        gpus = hardware.gpus()
        for gpu in gpus:
            hardware.probe(gpu)
    except DeviceUnusable as problem:
        if choice is DeviceChoice.CUDA:
            raise
        return Devices((), f"chosen because {problem.problem}")
    return Devices(
        gpus, "as asked for" if choice is DeviceChoice.CUDA else "chosen because a GPU was found and computes"
    )


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as problem:
        raise DeviceUnusable("torch is not installed", "pip install 'facedex[server,gpu]'") from problem
