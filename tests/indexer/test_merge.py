"""Two identities of one person become one: in the store, in every index that follows it, and after a restart."""

from __future__ import annotations

from datetime import datetime

import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import Person, person_vector, photograph

from facedex.indexer.enrolment import Enrol
from facedex.indexer.errors import IdentityNotFound, IdentityOnHold, InvalidArgument
from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.store.records import Change, ChangeOp, IdentityDetails

ADA, BOB = Person(1), Person(2)


def enrol(house: House, identity_id: str, person: Person, *, take: int = 0, expires_at: datetime | None = None) -> int:
    details = IdentityDetails(identity_id, display_name=identity_id.title(), expires_at=expires_at)
    return house.enroller.enrol(Enrol(details, (photograph(person, take=take),))).results[0].template_id


def found_by(gallery: Gallery, person: Person) -> list[tuple[str, float]]:
    candidates = gallery.identify(person_vector(person)[None], Query()).faces[0].candidates
    return [(each.identity.external_id, round(each.score, 3)) for each in candidates]


def log(house: House) -> list[Change]:
    return [change for batch in house.store.changes(house.gallery.record.id, after=0) for change in batch]


@pytest.fixture
def doubled(house: House) -> House:
    """Ada is enrolled twice, under two ids, with one photograph in common; so is Bob, once."""
    for take in (0, 1):
        enrol(house, "ada", Person(1, away=0.1), take=take)
    for take in (1, 2):
        enrol(house, "ada-again", Person(1, away=0.1), take=take)
    enrol(house, "bob", BOB)
    return house


def test_the_templates_move_with_their_quality_and_a_photograph_of_both_is_kept_once(doubled: House) -> None:
    """Nothing but the identity of a template changes, and its number."""
    before = doubled.store.identity(doubled.gallery.record, "ada-again").templates
    merged = doubled.gallery.merge_identities("ada-again", into="ada")
    after = doubled.store.identity(doubled.gallery.record, "ada")
    assert merged.template_count == 1
    assert (len(after.templates), after.display_name) == (3, "Ada")
    assert (after.templates[-1].quality, after.templates[-1].created_at) == (before[1].quality, before[1].created_at)
    with pytest.raises(IdentityNotFound):
        doubled.store.identity(doubled.gallery.record, "ada-again")


def test_a_moved_template_gets_a_new_number_in_the_same_transaction_as_the_old_one_goes(doubled: House) -> None:
    """Whoever follows the log never sees the person missing, and a number means one face of one identity for ever."""
    old = [each.id for each in doubled.store.identity(doubled.gallery.record, "ada-again").templates]
    start = doubled.gallery.revision
    merged = doubled.gallery.merge_identities("ada-again", into="ada")
    changes = [each for each in log(doubled) if each.seq > start]
    assert [each.op for each in changes] == [ChangeOp.ADD, ChangeOp.ERASE, ChangeOp.ERASE]
    assert changes[0].template_id > max(old)
    assert [each.template_id for each in changes[1:]] == old
    assert merged.revision == doubled.gallery.revision == changes[-1].seq


def test_every_index_follows_at_once_by_the_log_and_after_a_restart(doubled: House) -> None:
    """The answers of all three are the same: one identity where there were two, and the best of all its templates."""
    follower = doubled.open_gallery()
    assert {name for name, _ in found_by(follower, ADA)} == {"ada", "ada-again"}
    best = max(score for _, score in found_by(follower, ADA))
    doubled.gallery.merge_identities("ada-again", into="ada")
    assert "ada-again" not in dict(found_by(follower, ADA)), "what has gone is not returned, heard of or not"
    follower.catch_up()
    for gallery in (doubled.gallery, follower, doubled.open_gallery()):
        assert found_by(gallery, ADA) == [("ada", best)]
        assert gallery.template_count == 4


def test_of_two_expiries_the_earlier_one_counts(house: House) -> None:
    """No template is kept for longer than was said when it was enrolled."""
    soon, late = house.clock.now.replace(year=2027), house.clock.now.replace(year=2030)
    for name, expires_at in (("a", late), ("b", soon), ("c", None), ("d", late), ("e", None)):
        enrol(house, name, ADA, take=ord(name), expires_at=expires_at)
    for merged, kept, expected in (("b", "a", soon), ("a", "c", soon), ("d", "c", soon), ("e", "c", soon)):
        house.gallery.merge_identities(merged, into=kept)
        assert house.store.identity(house.gallery.record, kept).expires_at == expected


def test_whoever_is_on_hold_is_not_merged_away(doubled: House) -> None:
    record = doubled.gallery.record
    doubled.store.update_identity(record, "ada", {"hold_reason": "court 7"})
    with pytest.raises(IdentityOnHold, match="court 7"):
        doubled.gallery.merge_identities("ada", into="ada-again")
    doubled.gallery.merge_identities("ada-again", into="ada")
    assert doubled.store.identity(record, "ada").hold_reason == "court 7"


def test_a_merge_that_names_nobody_changes_nothing(doubled: House) -> None:
    """An identity that does not exist, has expired, or is the other one itself."""
    enrol(doubled, "gone", Person(1), take=9, expires_at=doubled.clock.now.replace(year=2027))
    doubled.clock.advance(days=400)
    before = doubled.gallery.revision
    for merged, into in (("nobody", "ada"), ("ada", "nobody"), ("gone", "ada"), ("ada", "gone")):
        with pytest.raises(IdentityNotFound):
            doubled.gallery.merge_identities(merged, into=into)
    with pytest.raises(InvalidArgument, match="same identity"):
        doubled.gallery.merge_identities("ada", into="ada")
    assert doubled.store.gallery("staff").revision == before
