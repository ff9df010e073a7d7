"""Which codes a gallery gets, and whether what is said of them holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.indexer.search.oracle import Oracle, unit_vectors

from facedex.indexer.search.code_choice import CodeChoice, cheapest, chosen_codes
from facedex.indexer.search.code_fit import CodeFit, measured_fit
from facedex.indexer.search.codebook import FULL_RATE, HALF_RATE, codebooks
from facedex.indexer.search.fast import FastIndex, FastSettings
from facedex.indexer.search.segment import Codes, Rows, Segment
from facedex.indexer.search.template_index import EVERYBODY

BOTH_RATES = (FULL_RATE, HALF_RATE)


def mates_at(cosine: float, rows: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    noise = unit_vectors(len(rows), seed=seed, dimension=rows.shape[1])
    across = noise - (noise * rows).sum(axis=1, keepdims=True) * rows
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.asarray(cosine * rows + np.sqrt(1 - cosine**2) * across, np.float32)


@pytest.mark.parametrize("rate", BOTH_RATES)
@pytest.mark.parametrize("cosine", [0.3, 0.5, 0.8])
def test_mates_at_the_score_floor_are_hardly_ever_left_behind_by_the_scan(rate: int, cosine: float) -> None:
    rows = unit_vectors(5_000, seed=1, dimension=256)
    (book,) = codebooks(256, (rate,))
    fit = measured_fit(rows, book, mate_cosine=cosine)
    segment = Segment(Rows(np.arange(5_000), np.arange(5_000), rows.astype(np.float16)), Codes.made(rows, book, fit))
    found = segment.reaching(mates_at(cosine, rows, seed=2), cosine, None)
    missed = sum(slot not in slots for slot, slots in enumerate(found))
    assert missed <= 4  # 0.5 are expected at 1e-4; 5 or more happen once in 5 000 times


def test_the_share_of_rows_that_is_foretold_is_the_share_that_is_scored() -> None:
    rows, probes = unit_vectors(20_000, seed=1, dimension=256), unit_vectors(30, seed=2, dimension=256)
    (book,) = codebooks(256, (FULL_RATE,))
    fit = measured_fit(rows, book, mate_cosine=0.3)
    segment = Segment(Rows(np.arange(20_000), np.arange(20_000), rows.astype(np.float16)), Codes.made(rows, book, fit))
    share = np.mean([len(slots) / len(rows) for slots in segment.reaching(probes, 0.3, None)])
    assert share == pytest.approx(fit.share_reaching(0.3), rel=0.25)


def test_shorter_codes_are_taken_where_the_operating_score_stands_clear_of_other_people() -> None:
    rows, books = unit_vectors(4_000, seed=1, dimension=512), codebooks(512, BOTH_RATES)
    assert chosen_codes(rows, books, operating_score=0.6).bits_per_component == 0.5
    assert chosen_codes(rows, books, operating_score=0.25).bits_per_component == 1


def test_every_row_is_scored_where_no_codes_can_tell_mates_from_others() -> None:
    rows, books = unit_vectors(4_000, seed=1, dimension=64), codebooks(64, BOTH_RATES)
    choice = chosen_codes(rows, books, operating_score=0.1)
    assert choice.codebook is None
    assert choice.reason.startswith("exact")


@pytest.mark.parametrize(("missed", "taken"), [(2, True), (3, False)])
def test_codes_that_miss_their_planted_mates_are_not_taken(missed: int, *, taken: bool) -> None:
    fit = CodeFit(gain=0.66, noise=0.01, centre=0.0, spread=0.02, checked=4_096, missed=missed)
    (book,) = codebooks(64, (FULL_RATE,))
    assert (cheapest([CodeChoice(book, fit, 0.6)]).codebook is book) is taken


def test_vectors_that_the_codes_fit_badly_are_found_all_the_same() -> None:
    # All in 6 of 128 directions: the codes distinguish them poorly, and the index has to notice that by itself.
    rng = np.random.default_rng(3)
    rows = np.zeros((6_000, 128), np.float32)
    rows[:, :6] = rng.standard_normal((6_000, 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    settings = replace(FastSettings(), exact_rows=64, bulk_rows=100)
    index, oracle = FastIndex(128, settings, operating_score=0.9), Oracle()
    numbers = list(range(1, 6_001))
    for each in (index, oracle):
        each.add(numbers, numbers, rows)
    for probe in rows[:20]:
        (hits,) = index.search(probe[None], limit=3, min_score=0.9)
        assert hits == oracle.search(probe, limit=3, min_score=0.9, scope=EVERYBODY)
