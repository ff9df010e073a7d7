"""Whom each template of a gallery resembles; NumPy's brute force is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from tests.indexer.evaluation.galleries import Gallery, cosines_of, gallery_of

from facedex.indexer.calibration.errors import ScoresInvalid
from facedex.indexer.evaluation import neighbours
from facedex.indexer.evaluation.neighbours import COHORT, LEAST_PEOPLE, Enrolled, Neighbours

GALLERY = gallery_of(people=40, templates=3)


def brute_force(gallery: Gallery, template: int) -> tuple[float, dict[int, float]]:
    """The best cosine to the own identity's others, and to each other identity."""
    cosines, identities = cosines_of(gallery)[template], gallery.identities
    best = {int(each): float(cosines[identities == each].max()) for each in np.unique(identities)}
    return best.pop(int(identities[template])), best


def test_each_template_meets_its_own_and_its_rivals_as_by_brute_force() -> None:
    """In order of score, an identity as its nearest template."""
    enrolled, met = GALLERY.enrolled, GALLERY.neighbours
    for row, template in enumerate(enrolled.order.tolist()):
        own, others = brute_force(GALLERY, template)
        nearest = sorted(others, key=lambda each: -others[each])[: 1 + COHORT]
        assert enrolled.names[met.rivals[row]].tolist() == nearest
        np.testing.assert_allclose(met.rival_scores[row], [others[each] for each in nearest], atol=1e-5)
        assert met.own[row] == pytest.approx(own, abs=1e-5)
        assert met.levels[row] == pytest.approx(np.mean([others[each] for each in nearest[1:]]), abs=1e-5)


def test_blocks_of_searches_meet_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the blocks are, no N × N matrix is needed, and the end of the work is reported."""
    whole = GALLERY.neighbours
    monkeypatch.setattr(neighbours, "BLOCK_SCORES", 700)
    shares: list[float] = []
    parts = Neighbours.of(GALLERY.enrolled, report=shares.append)
    np.testing.assert_array_equal(parts.rivals, whole.rivals)
    np.testing.assert_allclose(parts.own, whole.own, atol=1e-6)
    assert shares == sorted(shares)
    assert len(shares) > 20
    assert shares[-1] == 1.0


def test_a_template_that_is_alone_resembles_nothing_of_its_own() -> None:
    """Its best cosine to its identity's others is −∞, not one with itself."""
    assert (gallery_of(people=30, templates=1).neighbours.own == -np.inf).all()


def test_rows_of_a_person_are_the_templates_of_that_person() -> None:
    """In order of identity, whatever order they were given in."""
    enrolled = GALLERY.enrolled
    for person, name in enumerate(enrolled.names.tolist()):
        rows = enrolled.order[enrolled.rows_of(person)]
        assert sorted(rows.tolist()) == np.flatnonzero(GALLERY.identities == name).tolist()
    assert enrolled.counts.tolist() == [3] * 40


def test_too_few_people_or_as_many_identities_as_no_vectors_are_refused() -> None:
    """What chance gives cannot be seen among a handful of people."""
    few = gallery_of(people=LEAST_PEOPLE - 1, templates=2)
    with pytest.raises(ScoresInvalid, match="is seen from 20 identities on"):
        Enrolled.of(few.vectors, few.identities)
    with pytest.raises(ScoresInvalid, match="has shape"):
        Enrolled.of(GALLERY.vectors, GALLERY.identities[1:])
