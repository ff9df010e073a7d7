"""A gallery changes its model: who is found, by which model, before, during and after; on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import func, select
from tests.indexer.doubles import DIMENSION, MODEL, Person, person_vector

from facedex.indexer.consistency.check import check_gallery
from facedex.indexer.enroller import Submission
from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.errors import ModelChanged, NoSuccession, StoreUnavailable, SuccessionExists, SuccessionIncomplete
from facedex.indexer.gallery import ModelsChanged
from facedex.indexer.identification import Decision, Query, SearchMode
from facedex.indexer.jobs import changeover
from facedex.indexer.policy import policy_to_json
from facedex.indexer.store.engine import open_engine
from facedex.indexer.store.enrolling import EnrolmentEntry
from facedex.indexer.store.records import IdentityDetails, ModelRecord, NewEnrolment, NewTemplate, SuccessorVector
from facedex.indexer.store.schema import successor_vector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from tests.indexer.conftest import House

    from facedex.indexer.gallery import Gallery
    from facedex.indexer.identification import Identifications

NEW_MODEL = ModelRecord("ab" * 32, "newer", 48, "Apache-2.0", 0.5, "made for tests")
PEOPLE = 60
EVERYBODY = Query(limit=10, mode=SearchMode.INVESTIGATION)


def old_vector(number: int, *, take: int = 0) -> NDArray[np.float32]:
    return person_vector(Person(number, away=0.2), take=take)


def new_vector(number: int, *, take: int = 0) -> NDArray[np.float32]:
    """The same person as another model sees them."""
    random = np.random.default_rng([7, number])
    face, noise = random.standard_normal(48), np.random.default_rng([7, number, take]).standard_normal(48)
    mixed = face / np.linalg.norm(face) + 0.3 * noise / np.linalg.norm(noise)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def enrol(house: House, number: int, *, take: int = 0) -> int:
    item = VectorItem(old_vector(number, take=take), MODEL.digest)
    enrolment = house.enroller.enrol(Enrol(IdentityDetails(f"{number}"), (item,)))
    return enrolment.results[0].template_id


def embed(house: House, templates: dict[int, int], *, take: int = 0) -> None:
    """Template → number of the person whom it shows."""
    vectors = {template: new_vector(number, take=take) for template, number in templates.items()}
    house.store.successions.add(house.gallery.record, vectors, model_digest=NEW_MODEL.digest)
    house.gallery.catch_up()


def cut_over(house: House) -> None:
    assert changeover.measure_scale(house.gallery)
    house.store.successions.put_in_force(house.gallery.record, digest="", certificate=None)
    house.gallery.catch_up()


def ask(gallery: Gallery, number: int, query: Query | None = None) -> Identifications:
    """With a probe of the person by the model in force, and by the other one where it is asked too."""
    is_new = gallery.record.model_in_force.digest == NEW_MODEL.digest
    probe = new_vector(number, take=99) if is_new else old_vector(number, take=99)
    old = old_vector(number, take=99)[None] if gallery.asks_both_models else None
    digest = gallery.record.model_in_force.digest
    return gallery.identify(probe[None], query or Query(), model_digest=digest, by_old_model=old)


def best(gallery: Gallery, number: int) -> str | None:
    face = ask(gallery, number).faces[0]
    return face.candidates[0].identity.external_id if face.decision is Decision.MATCH else None


@pytest.fixture
def templates(house: House) -> dict[int, int]:
    """Everybody is enrolled once, and the change has begun."""
    entries = [
        EnrolmentEntry(
            NewEnrolment(
                IdentityDetails(f"{number}"), MODEL.digest, (NewTemplate(old_vector(number), f"{number:064x}"),)
            )
        )
        for number in range(PEOPLE)
    ]
    added = house.gallery.enrol_all(entries)
    enrolled = {each.templates[0].template_id: number for number, each in enumerate(added)}
    house.store.successions.begin(house.gallery.record, NEW_MODEL)
    house.gallery.catch_up()
    return enrolled


def test_the_old_model_answers_to_the_last_bit_until_the_new_one_is_in_force(
    house: House, templates: dict[int, int]
) -> None:
    before = [ask(house.gallery, number, EVERYBODY).faces for number in range(10)]
    embed(house, templates)
    assert [ask(house.gallery, number, EVERYBODY).faces for number in range(10)] == before


@pytest.mark.parametrize("share", [0.9, 0.95, 1.0])
def test_everybody_is_found_by_the_model_that_knows_them(house: House, templates: dict[int, int], share: float) -> None:
    embedded = dict(list(templates.items())[: round(share * PEOPLE)])
    embed(house, embedded)
    cut_over(house)
    assert house.gallery.asks_both_models == (share < 1)
    assert [best(house.gallery, number) for number in range(PEOPLE)] == [f"{number}" for number in range(PEOPLE)]
    assert best(house.gallery, 1_000) is None
    left = set(house.store.successions.left_behind(house.gallery.record))
    assert left == {f"{number}" for number in set(templates.values()) - set(embedded.values())}


def test_a_database_that_is_away_at_the_cut_over_only_postpones_it(
    house: House, templates: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(house, dict(list(templates.items())[:55]))
    assert changeover.measure_scale(house.gallery)
    house.store.successions.put_in_force(house.gallery.record, digest="", certificate=None)
    failures = iter([StoreUnavailable("away")])
    read = house.store.successions.embedded

    def embedded(identity_ids: Iterable[int]) -> set[int]:
        for failure in failures:
            raise failure
        return read(identity_ids)

    monkeypatch.setattr(house.store.successions, "embedded", embedded)
    with pytest.raises(StoreUnavailable):
        house.gallery.catch_up()
    assert best(house.gallery, 3) == "3"  # by the old model
    house.gallery.catch_up()
    assert house.gallery.asks_both_models
    assert [best(house.gallery, number) for number in (3, 58)] == ["3", "58"]


def test_what_was_made_for_another_model_is_not_put_in_force(house: House, templates: dict[int, int]) -> None:
    embed(house, templates)
    meant = house.gallery.record
    house.store.successions.abandon(meant)
    house.store.successions.begin(meant, replace(NEW_MODEL, digest="cd" * 32))
    with pytest.raises(NoSuccession):
        house.store.successions.set_scale(meant, {})
    with pytest.raises(NoSuccession):
        house.store.successions.put_in_force(meant, digest="", certificate=None)


def test_a_policy_that_is_changed_while_a_change_of_model_is_finished_stays(
    house: House, templates: dict[int, int]
) -> None:
    embed(house, templates)
    cut_over(house)
    house.store.update_policy("staff", policy_to_json(replace(house.gallery.policy, retention_seconds=600)))
    changeover.finish(house.gallery)
    assert house.gallery.policy.retention_seconds == 600


def test_candidates_of_both_models_stand_in_one_list_in_descending_score(
    house: House, templates: dict[int, int]
) -> None:
    embed(house, dict(list(templates.items())[:55]))
    cut_over(house)
    for number in (3, 58):
        candidates = ask(house.gallery, number, EVERYBODY).faces[0].candidates
        scores = [each.score for each in candidates]
        assert scores == sorted(scores, reverse=True)
        assert candidates[0].identity.external_id == f"{number}"
        assert len({each.identity.id for each in candidates}) == 10


def test_roll_back_restores_the_old_answers_to_the_last_bit(house: House, templates: dict[int, int]) -> None:
    before = [ask(house.gallery, number, EVERYBODY).faces for number in range(PEOPLE)]
    embed(house, dict(list(templates.items())[:55]))
    cut_over(house)
    house.store.successions.take_back(house.gallery.record)
    house.gallery.catch_up()
    assert [ask(house.gallery, number, EVERYBODY).faces for number in range(PEOPLE)] == before
    assert [ask(house.open_gallery(), number, EVERYBODY).faces for number in range(5)] == before[:5]


def test_a_probe_of_the_model_that_is_not_in_force_is_never_compared(house: House, templates: dict[int, int]) -> None:
    embed(house, dict(list(templates.items())[:55]))
    old, new = old_vector(1)[None], new_vector(1)[None]
    with pytest.raises(ModelsChanged):
        house.gallery.identify(new, Query(), model_digest=NEW_MODEL.digest)
    cut_over(house)
    with pytest.raises(ModelsChanged):
        house.gallery.identify(old, Query(), model_digest=MODEL.digest)
    with pytest.raises(ModelsChanged):  # somebody could not be found by it
        house.gallery.identify(new, Query(), model_digest=NEW_MODEL.digest)


@pytest.mark.parametrize("is_in_force", [False, True])
def test_who_is_erased_is_found_by_neither_model_and_leaves_no_vector(
    house: House, templates: dict[int, int], *, is_in_force: bool
) -> None:
    embed(house, dict(list(templates.items())[:55]))
    if is_in_force:
        cut_over(house)
    for number in (3, 58):
        house.gallery.delete_identity(f"{number}")
    for gallery in (house.gallery, house.open_gallery()):
        assert [best(gallery, number) for number in (3, 58)] == [None, None]
    engine = open_engine(house.url)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(successor_vector)).scalar() == 54
    engine.dispose()


def test_who_loses_the_only_face_with_a_new_vector_is_found_by_the_old_model_again(
    house: House, templates: dict[int, int]
) -> None:
    second = enrol(house, 5, take=1)
    first = next(template for template, number in templates.items() if number == 5)
    embed(house, dict(list(templates.items())[:55]))
    cut_over(house)
    house.gallery.delete_template(first)
    assert house.gallery.asks_both_models
    for gallery in (house.gallery, house.open_gallery()):
        candidate = ask(gallery, 5).faces[0].candidates[0]
        assert (candidate.identity.external_id, candidate.template_id) == ("5", second)


def test_who_is_captured_again_moves_over_to_the_new_model(house: House, templates: dict[int, int]) -> None:
    embed(house, dict(list(templates.items())[:59]))
    cut_over(house)
    embed(house, {enrol(house, 59, take=1): 59})
    assert not house.gallery.asks_both_models
    assert best(house.gallery, 59) == "59"


def test_a_process_that_starts_during_the_change_counts_each_template_once(
    house: House, templates: dict[int, int]
) -> None:
    """The log tells of each twice: when it was added, and when it was embedded anew; both carry both vectors by now."""
    embed(house, templates)
    started = house.open_gallery()
    assert started.succession is not None
    assert len(started.succession.new) == PEOPLE
    cut_over(house)
    started.catch_up()
    started.delete_identity("7")
    assert len(started.succession.new) == PEOPLE - 1
    assert best(started, 7) is None


def test_another_process_follows_each_step(house: House, templates: dict[int, int]) -> None:
    other = house.open_gallery()
    embed(house, dict(list(templates.items())[:55]))
    cut_over(house)
    other.catch_up()
    for number in (1, 58):
        assert ask(other, number, EVERYBODY).faces == ask(house.gallery, number, EVERYBODY).faces
    house.store.successions.take_back(house.gallery.record)
    other.catch_up()
    assert other.record.model_in_force == MODEL


def test_the_templates_of_merged_identities_keep_their_new_vectors(house: House, templates: dict[int, int]) -> None:
    embed(house, templates)
    cut_over(house)
    house.gallery.merge_identities("8", into="9")
    assert not house.gallery.asks_both_models
    assert (best(house.gallery, 8), best(house.gallery, 9)) == ("9", "9")


# The end


def test_when_it_is_finished_the_gallery_is_as_if_it_had_never_had_another_model(
    house: House, templates: dict[int, int]
) -> None:
    embed(house, templates)
    cut_over(house)
    during = [ask(house.gallery, number, EVERYBODY).faces for number in range(PEOPLE)]
    lagging = house.open_gallery()
    changeover.finish(house.gallery)
    lagging.catch_up()
    for gallery in (house.gallery, lagging, house.open_gallery()):
        assert gallery.record.model == NEW_MODEL
        assert gallery.succession is None
        assert gallery.template_count == PEOPLE
        assert [ask(gallery, number, EVERYBODY).faces for number in range(PEOPLE)] == during
    assert check_gallery(house.gallery).findings == []


def test_it_is_not_finished_while_somebody_is_left_behind(house: House, templates: dict[int, int]) -> None:
    embed(house, dict(list(templates.items())[:55]))
    with pytest.raises(SuccessionIncomplete, match="not in force"):
        changeover.finish(house.gallery)
    cut_over(house)
    with pytest.raises(SuccessionIncomplete, match="5 templates"):
        changeover.finish(house.gallery)


def test_when_it_is_given_up_nothing_of_the_new_model_is_left(house: House, templates: dict[int, int]) -> None:
    before = [ask(house.gallery, number, EVERYBODY).faces for number in range(5)]
    embed(house, templates)
    cut_over(house)
    house.store.successions.abandon(house.gallery.record)
    house.gallery.catch_up()
    assert [ask(house.gallery, number, EVERYBODY).faces for number in range(5)] == before
    with pytest.raises(NoSuccession):
        house.store.successions.of(house.gallery.record)
    assert check_gallery(house.gallery).findings == []


def test_one_change_at_a_time(house: House, templates: dict[int, int]) -> None:
    assert templates
    with pytest.raises(SuccessionExists):
        house.store.successions.begin(house.gallery.record, NEW_MODEL)


@pytest.mark.parametrize("is_in_force", [False, True])
def test_an_examination_finds_nothing_wrong_with_a_gallery_that_changes_its_model(
    house: House, templates: dict[int, int], *, is_in_force: bool
) -> None:
    embed(house, dict(list(templates.items())[:55]))
    if is_in_force:
        cut_over(house)
    assert check_gallery(house.gallery).findings == []


# What was made with a model that the gallery no longer has, or never had


def test_what_was_embedded_before_the_gallery_changed_its_model_is_not_written_after(
    house: House, templates: dict[int, int]
) -> None:
    item = VectorItem(old_vector(PEOPLE), MODEL.digest)
    prepared = house.enroller.prepare(Enrol(IdentityDetails("late"), (item,)))
    embed(house, templates)
    cut_over(house)
    changeover.finish(house.gallery)
    with pytest.raises(ModelChanged):
        house.enroller.commit_shared(Submission(prepared))
    assert house.store.gallery("staff").template_count == PEOPLE


def test_vectors_for_a_change_that_was_given_up_do_not_go_into_another_one(
    house: House, templates: dict[int, int]
) -> None:
    other = replace(NEW_MODEL, digest="ef" * 32)
    vectors = {template: new_vector(number) for template, number in templates.items()}
    house.store.successions.abandon(house.gallery.record)
    house.store.successions.begin(house.gallery.record, other)
    with pytest.raises(NoSuccession):
        house.store.successions.add(house.gallery.record, vectors, model_digest=NEW_MODEL.digest)
    late = NewTemplate(old_vector(PEOPLE), "0" * 64, successor=SuccessorVector(new_vector(PEOPLE), NEW_MODEL.digest))
    house.gallery.enrol_all([EnrolmentEntry(NewEnrolment(IdentityDetails("late"), MODEL.digest, (late,)))])
    assert house.store.successions.counts(house.gallery.record).embedded_templates == 0


# Any order of events


class Truth:
    """What both models know of whom, and which one answers."""

    def __init__(self) -> None:
        self.faces: dict[int, tuple[int, int]] = {}
        self.embedded: set[int] = set()

    def best(self, number: int, *, is_in_force: bool) -> set[int]:
        """The templates of the person that may be found."""
        own = {template for template, (person, _) in self.faces.items() if person == number}
        return (own & self.embedded or own) if is_in_force else own


@pytest.mark.parametrize("seed", range(2))
def test_in_any_order_of_events_each_person_is_found_by_the_right_face(
    house: House, templates: dict[int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    truth = Truth()
    truth.faces = {template: (number, 0) for template, number in templates.items()}
    embed(house, templates)
    truth.embedded = set(templates)
    cut_over(house)
    is_in_force = True
    for step in range(40):
        event, number = random.integers(6), int(random.integers(PEOPLE))
        own = [template for template, (person, _) in truth.faces.items() if person == number]
        if event <= 1:
            truth.faces[enrol(house, number, take=step + 1)] = (number, step + 1)
        elif event == 2 and own:
            template = int(random.choice(own))
            embed(house, {template: number}, take=truth.faces[template][1])
            truth.embedded.add(template)
        elif event == 3 and own:
            template = int(random.choice(own))
            house.gallery.delete_template(template)
            del truth.faces[template]
            truth.embedded.discard(template)
        elif event == 4 and own:
            house.gallery.delete_identity(f"{number}")
            for template in own:
                del truth.faces[template]
                truth.embedded.discard(template)
        elif event == 5:
            is_in_force = not is_in_force
            change = house.store.successions
            if is_in_force:
                change.put_in_force(house.gallery.record, digest="", certificate=None)
            else:
                change.take_back(house.gallery.record)
            house.gallery.catch_up()
        expected = truth.best(number, is_in_force=is_in_force)
        for gallery in (house.gallery, house.open_gallery()) if step % 10 == 9 else (house.gallery,):
            candidates = ask(gallery, number).faces[0].candidates
            found = {each.template_id for each in candidates if each.identity.external_id == f"{number}"}
            assert bool(found) == bool(expected)
            assert found <= expected
    assert NEW_MODEL.dimension != DIMENSION
