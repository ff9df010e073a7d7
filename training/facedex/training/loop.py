"""The loop that every network is trained by: steps, checkpoints, and going on after a kill as if nothing had been."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol, TypeGuard

import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from facedex.training.devices import Workplace
from facedex.training.errors import CheckpointUnusable
from facedex.training.history import History
from facedex.training.optimisers import OptimiserName, optimisers_of
from facedex.training.progress import Observer
from facedex.training.schedule import Schedule

CHECKPOINT: Final = "checkpoint.pt"
_LARGEST_GRADIENT: Final = 5.0


class Lesson(Protocol):
    """What is learnt."""

    @property
    def settings(self) -> object:
        """What must be the same when a run goes on; its `repr` says all of it."""
        ...

    @property
    def network(self) -> nn.Module:
        """Everything that learns, on its device."""
        ...

    @property
    def student(self) -> nn.Module:
        """The part that is kept in the end."""
        ...

    def losses(self, chance: Generator, *, share_done: float) -> dict[str, Tensor]:
        """The parts of the loss of one batch, which are added; whatever is drawn comes from `chance`."""
        ...

    def examine(self, student: nn.Module) -> dict[str, float]:
        """Figures of a student in evaluation mode on what it never learnt from; empty where there is nothing."""
        ...


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long and how: everything that must be the same when a run goes on."""

    steps: int
    learning_rate: float = 2e-3
    optimiser: OptimiserName = OptimiserName.ADAMW
    weight_decay: float = 0.02
    averaging: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: int = 0
    figures_every: int = 20
    """Steps between entries of the history."""
    examinations: int = 4
    """How often the student is examined, the last time in the end."""
    seconds_between_checkpoints: float = 120.0


class Loop:
    """One run in one folder. The same settings and data give the same weights, killed in between or not."""

    def __init__(self, lesson: Lesson, settings: LoopSettings, *, folder: Path, workplace: Workplace) -> None:
        self._lesson = lesson
        self._settings = settings
        self._folder = folder
        self._chance = workplace.generator(settings.seed)
        self._optimisers = optimisers_of(lesson.network, settings.optimiser, decay=settings.weight_decay)
        self._schedule = Schedule(settings.steps, settings.learning_rate)
        average = get_ema_multi_avg_fn(settings.averaging)
        self._averaged = AveragedModel(lesson.student, multi_avg_fn=average, use_buffers=True)
        self._history = History()
        self._step = 0

    def run(self, observer: Observer) -> nn.Module:
        """All steps that are left, and the averaged student.

        Raises:
            CheckpointUnusable: the folder's checkpoint is of another run.

        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        observer.steps(self._settings.steps, self._step)
        saved, sums = monotonic(), _Means()
        while self._step < self._settings.steps:
            sums.add(self._learn())
            observer.stepped(self._step, self._record(sums))
            if monotonic() - saved >= self._settings.seconds_between_checkpoints:
                self._save()
                saved = monotonic()
        self._save()
        student: nn.Module = self._averaged.module
        return student.eval()

    def _learn(self) -> dict[str, float]:
        self._set(self._schedule.rate(self._step))
        self._lesson.network.train()
        parts = self._lesson.losses(self._chance, share_done=self._step / self._settings.steps)
        self._lesson.network.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._lesson.network.parameters(), _LARGEST_GRADIENT)
        for optimiser in self._optimisers:
            optimiser.step()
        self._averaged.update_parameters(self._lesson.student)
        self._step += 1
        return {name: float(part.detach()) for name, part in parts.items()}

    def _set(self, rate: float) -> None:
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate

    def _record(self, sums: _Means) -> dict[str, float]:
        last = self._step == self._settings.steps
        if not last and self._step % self._settings.figures_every:
            return {}
        figures = {**sums.taken(), "learning rate": self._schedule.rate(self._step - 1)}
        if last or self._is_examined():
            figures |= self._lesson.examine(self._averaged.module.eval())
        self._history.add(self._step, figures)
        self._history.save(self._folder)
        return figures

    def _is_examined(self) -> bool:
        """At the first entry of each of the equal parts of the run."""
        part = self._settings.steps / self._settings.examinations if self._settings.examinations else torch.inf
        return int(self._step / part) > int((self._step - self._settings.figures_every) / part)

    def _save(self) -> None:
        """Under its name at once: a kill leaves the last checkpoint whole."""
        partial = self._folder / f"{CHECKPOINT}.part"
        state = {
            "settings": self._description(),
            "step": self._step,
            "network": self._lesson.network.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimisers": [each.state_dict() for each in self._optimisers],
            "chance": self._chance.get_state(),
            "history": self._history.as_plain(),
        }
        torch.save(state, partial)
        os.replace(partial, self._folder / CHECKPOINT)  # noqa: PTH105  (says what it is about)

    def _description(self) -> str:
        """How often checkpoints are written may change."""
        pace = replace(self._settings, seconds_between_checkpoints=0.0)
        return f"{pace}, {self._lesson.settings}"

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT
        if not path.exists():
            return
        state = load_state(path)
        if state.get("settings") != self._description():
            raise CheckpointUnusable(path, "is of a run with other settings; name another folder for this one")
        try:
            self._lesson.network.load_state_dict(state["network"])
            self._averaged.load_state_dict(state["averaged"])
            for optimiser, its in zip(self._optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(its)
        except (KeyError, RuntimeError, ValueError) as problem:
            raise CheckpointUnusable(path, "is of another network; name another folder for this run") from problem
        self._chance.set_state(state["chance"].cpu())
        self._history = History.of_plain(state["history"])
        self._step = int(state["step"])


class _Means:
    """Sums of figures since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, figures: dict[str, float]) -> None:
        self._count += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def taken(self) -> dict[str, float]:
        means = {name: total / max(1, self._count) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def load_state(path: Path) -> Any:
    """What a checkpoint holds; only tensors and plain values are ever read.

    Raises:
        CheckpointUnusable: it cannot be read, or holds something else.

    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # unpickling hostile bytes can raise anything
        raise CheckpointUnusable(path, "is no checkpoint of weights, or it is damaged") from problem


def batches(rows: int, size: int) -> Iterator[slice]:
    """Slices of up to `size` rows."""
    return (slice(start, start + size) for start in range(0, rows, size))


def embedded(network: nn.Module, rows: int, views: Callable[[slice], Tensor], *, size: int = 128) -> Tensor:
    """What a network in evaluation mode makes of all rows, a batch at a time."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(views(part)) for part in batches(rows, size)])


def start_from(
    path: Path, student: nn.Module, *, fitted: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
) -> None:
    """Begin with the weights of a state dict, or with the averaged ones of a run's checkpoint, as `fitted` gives them out.

    Raises:
        CheckpointUnusable: they are of another network.

    """
    state = load_state(path)
    if isinstance(state, dict) and "averaged" in state:
        averaged = state["averaged"]
        state = {name.removeprefix("module."): each for name, each in averaged.items() if name != "n_averaged"}
    unusable = CheckpointUnusable(path, "holds the weights of another network")
    if not _are_weights(state):
        raise unusable
    try:
        student.load_state_dict(fitted(state))
    except RuntimeError as problem:
        raise unusable from problem


def _are_weights(state: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(state, dict) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items())
