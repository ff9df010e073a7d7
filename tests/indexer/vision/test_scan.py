"""Where and how closely the detector looks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.scan import Scan, cut_in_tiles, looking_scales


@given(length=st.integers(1, 20_000), largest=st.integers(256, 1280))
def test_tiles_cover_the_picture_and_overlap_by_the_largest_face_that_only_they_find(length: int, largest: int) -> None:
    tiles = cut_in_tiles(length, largest)
    assert tiles[0][0] == 0
    assert tiles[-1][1] == length
    assert all(0 < end - start <= largest for start, end in tiles)
    assert all(tiles[n][1] - tiles[n + 1][0] >= 127 for n in range(len(tiles) - 1))


@given(longer_side=st.integers(1, 20_000))
def test_looks_go_from_fine_to_coarse_and_never_enlarge(longer_side: int) -> None:
    scales = looking_scales(longer_side, finest_side=min(longer_side, 2000))
    assert scales == sorted(scales, reverse=True)
    assert scales[0] <= 1
    assert scales[-1] * longer_side <= 440
    assert all(finer <= coarser * 6.01 for finer, coarser in pairwise(scales))


@pytest.mark.parametrize(("longer_side", "finest_side"), [(250, 250), (800, 640), (2000, 1200), (12_000, 2000)])
def test_the_finest_look_shows_the_smallest_face_as_large_as_the_detector_needs(
    pipeline: FacePipeline, longer_side: int, finest_side: int
) -> None:
    assert Scan(pipeline.detector, smallest_face_px=20).finest_side(longer_side) == finest_side
