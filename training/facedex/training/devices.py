"""What a network is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch


class Precision(StrEnum):
    """What the network computes in; weights and losses are always 32 bits."""

    AUTO = "auto"
    FULL = "full"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Workplace:
    """A device, and whether networks compute in bfloat16 on it."""

    device: torch.device
    is_mixed: bool

    @staticmethod
    def of(device: str | None, precision: Precision) -> Workplace:
        """A GPU where there is one. Mixed precision by itself where it is faster: without AMX, a CPU takes ten times as long."""
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        is_fast = chosen.type == "cuda" or (chosen.type == "cpu" and _has_amx())
        mixed = precision is Precision.BFLOAT16 or (precision is Precision.AUTO and is_fast)
        return Workplace(chosen, mixed)

    def __str__(self) -> str:
        return f"{self.device} in {'bfloat16' if self.is_mixed else '32 bits'}"

    def computing(self) -> torch.autocast:
        """Within it, networks compute as chosen."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed)

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)


def _has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16; a torch that does not tell counts as no."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))
