"""A gallery searched against itself, as it is and as it would be; NumPy's brute force is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from tests.indexer.evaluation.galleries import Gallery, cosines_of, gallery_of

from facedex.indexer.evaluation.self_search import ErrorRates, SelfSearch

THRESHOLD = 0.35
GALLERY = gallery_of(people=40, templates=3, away=1.3)


def brute_force(gallery: Gallery) -> ErrorRates:
    cosines, identities = cosines_of(gallery), gallery.identities
    own = identities[:, None] == identities[None]
    mate, rival = (np.where(chosen, cosines, -np.inf).max(axis=1) for chosen in (own, ~own))
    mated = own.sum(axis=1) > 1
    missed = (mate < THRESHOLD) | (mate <= rival)
    return ErrorRates(float((rival >= THRESHOLD).mean()), float(missed[mated].mean()) if mated.any() else None)


def same(rates: ErrorRates, expected: ErrorRates) -> bool:
    return [rates.fpir, rates.fnir] == pytest.approx([expected.fpir, expected.fnir])


@pytest.fixture(scope="module")
def searched() -> SelfSearch:
    return SelfSearch.at(THRESHOLD, GALLERY.enrolled)


def test_the_error_rates_are_those_of_brute_force(searched: SelfSearch) -> None:
    """Both rates lie well inside, so that a rate that is always 0 or 1 would be seen."""
    expected = brute_force(GALLERY)
    assert 0.1 < (expected.fpir or 0) < 0.9
    assert 0.1 < (expected.fnir or 0) < 0.9
    assert same(searched.rates(), expected)


def test_the_error_rates_after_an_erasure_are_those_of_the_gallery_without_the_templates(searched: SelfSearch) -> None:
    """Also where somebody is left with one template, and is no longer a mated search."""
    for rows in ([0], [0, 1], [3, 4, 5], [7, 50, 90]):
        kept = np.delete(GALLERY.enrolled.order, rows)
        expected = brute_force(Gallery(GALLERY.vectors[kept], GALLERY.identities[kept]))
        assert same(searched.rates_without(np.array(rows)), expected)


def test_the_error_rates_after_a_merge_are_those_of_the_gallery_with_one_identity_for_two(searched: SelfSearch) -> None:
    """What was a false positive has become a mate."""
    for person, other in ((0, 1), (5, 30), (39, 2)):
        merged = np.where(GALLERY.identities == other, person, GALLERY.identities)
        assert same(searched.rates_merged(person, other), brute_force(Gallery(GALLERY.vectors, merged)))


def test_a_gallery_of_single_templates_has_no_fnir() -> None:
    """There is nothing to find, which is not the same as finding nothing."""
    single = gallery_of(people=30, templates=1)
    assert SelfSearch.at(THRESHOLD, single.enrolled).rates().fnir is None
