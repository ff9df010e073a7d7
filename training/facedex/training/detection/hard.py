"""Canvases on which a detector errs: those without a face on which it sees one.

A canvas is its seed, so hard ones need no room.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facedex.training.detection.labelled import LabelledPhotographs
from facedex.training.detection.mosaics import Canvas, MosaicSettings, draw_canvas
from facedex.training.devices import Workplace
from facedex.training.loop import batches
from facedex.training.progress import Observer

LEAST_SCORE: Final = 0.3
"""From which on a detector counts as seeing a face: below its threshold, so that near misses are learnt from too."""
_AT_ONCE: Final = 16


def draw_faceless(photographs: LabelledPhotographs, settings: MosaicSettings, seed: int) -> Canvas:
    """Parts of photographs without faces; where one has none, a photograph with its faces."""
    return draw_canvas(photographs, replace(settings, faceless_share=1.0), np.random.default_rng(seed))


def hard_seeds(
    finder: nn.Module,
    photographs: LabelledPhotographs,
    settings: MosaicSettings,
    candidates: int,
    *,
    workplace: Workplace,
    observer: Observer,
) -> NDArray[np.int64]:
    """Of the seeds below `candidates`, those whose canvas shows no face, and the finder sees one."""
    hard: list[int] = []
    for part in observer.track(list(batches(candidates, _AT_ONCE)), "hard canvases"):
        drawn = {seed: draw_faceless(photographs, settings, seed) for seed in range(candidates)[part]}
        faceless = {seed: canvas for seed, canvas in drawn.items() if _is_faceless(canvas)}
        if faceless:
            scores = _highest_scores(finder, list(faceless.values()), workplace)
            hard.extend(seed for seed, score in zip(faceless, scores, strict=True) if score >= LEAST_SCORE)
    return np.array(hard, np.int64)


def _is_faceless(canvas: Canvas) -> bool:
    return not len(canvas.corners) and not canvas.ignored.any()


def _highest_scores(finder: nn.Module, canvases: list[Canvas], workplace: Workplace) -> list[float]:
    pixels = torch.from_numpy(np.stack([canvas.pixels for canvas in canvases])).to(workplace.device)
    finder.eval()
    with torch.inference_mode(), workplace.computing():
        maps = finder(
            ((pixels.permute(0, 3, 1, 2).float() - 127.5) / 128).contiguous(memory_format=torch.channels_last)
        )
    scores = torch.stack([each[:, 0].float().amax(dim=(1, 2)) for each in maps]).amax(dim=0)
    return [float(score) for score in torch.sigmoid(scores)]
