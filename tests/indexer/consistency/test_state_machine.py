"""Store, gallery and index under any order of changes, upkeep, crashes, old snapshots and restored backups."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from tests.indexer.consistency.test_planted_faults import DIMENSION, MODEL, SmallIndexes

from facedex.indexer.consistency.check import check_gallery
from facedex.indexer.consistency.row_table import RowTable
from facedex.indexer.errors import IdentityNotFound, StoreUnavailable, TemplateNotFound
from facedex.indexer.failpoints import Step
from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import SECRET
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.search.exact import Block
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.segment import Segment
from facedex.indexer.search.snapshot import Snapshot, read_snapshot
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import GalleryRecord, IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

PEOPLE, TAKES = 5, 3
people = st.integers(0, PEOPLE - 1)
takes = st.integers(0, TAKES - 1)


@lru_cache(maxsize=1)
def faces() -> NDArray[np.float32]:
    """Photographs (PEOPLE, TAKES, DIMENSION): those of one person are alike, those of two are not."""
    rng = np.random.default_rng(5)
    persons = rng.standard_normal((PEOPLE, 1, DIMENSION))
    rows = persons + 0.3 * rng.standard_normal((PEOPLE, TAKES, DIMENSION))
    return np.asarray(rows / np.linalg.norm(rows, axis=2, keepdims=True), np.float32)


class Died(Exception):
    """The process ends here: what it held in memory is gone."""


class Oracle(dict[int, dict[int, int]]):
    """Person → photograph → the template's number."""

    def copied(self) -> Oracle:
        return Oracle({person: dict(shown) for person, shown in self.items()})

    @property
    def numbers(self) -> list[int]:
        return sorted(number for shown in self.values() for number in shown.values())


class GalleryLife(RuleBasedStateMachine):
    """A gallery over SQLite beside a plain dictionary."""

    indexes: type[SmallIndexes] = SmallIndexes

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.dying: Step | None = None
        self.oracle = Oracle()
        self.erased: set[int] = set()
        self.backup: Oracle | None = None
        self.old_snapshot = False
        self.open_store().create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
        self.store.secret(SECRET)  # so that a restored backup can read what was written after it
        self.open()

    def teardown(self) -> None:
        self.end()
        shutil.rmtree(self.folder)

    # The process

    def open_store(self) -> Store:
        self.store = Store.open(sqlite_url(self.folder / "facedex.db"), reached=self.reached)
        return self.store

    def open(self) -> None:
        indexes = self.indexes(self.store, self.folder / "index", least_rows=1)
        self.gallery = Gallery(self.store.gallery("staff"), store=self.store, indexes=indexes)
        self.gallery.catch_up()

    def end(self) -> None:
        """With the process, its threads are gone: a rebuild that is under way must not open the database again."""
        with suppress(Exception):
            self.gallery.settle()
        self.store.close()

    def reached(self, step: Step) -> None:
        if step is self.dying:
            self.dying = None
            raise Died

    def begin_again(self) -> None:
        """Nothing is put in order; a transaction that was open is rolled back, as by the kernel's closing of the file."""
        self.end()
        self.open_store()
        self.open()

    # Changes

    @rule(person=people, take=takes)
    def enrol(self, person: int, take: int) -> None:
        number = self.enrolled(person, take)
        known = self.oracle.get(person, {}).get(take)
        assert known in {None, number}
        assert number not in self.erased
        self.oracle.setdefault(person, {})[take] = number

    @rule(person=people)
    def enrol_all_of(self, person: int) -> None:
        for take in range(TAKES):
            self.enrol(person, take)

    def enrolled(self, person: int, take: int) -> int:
        template = NewTemplate(faces()[person, take], f"{person:032x}{take:032x}")
        enrolment = NewEnrolment(IdentityDetails(f"person-{person}"), MODEL.digest, (template,))
        return self.gallery.enrol(enrolment, answer_for=lambda _: None).templates[0].template_id

    @rule(person=people)
    def erase_an_identity(self, person: int) -> None:
        shown = self.oracle.pop(person, None)
        try:
            erased = self.gallery.delete_identity(f"person-{person}")
        except IdentityNotFound:
            assert shown is None
        else:
            assert erased.template_count == len(shown or {})
            self.erased |= set((shown or {}).values())

    @rule(person=people, take=takes)
    def erase_a_template(self, person: int, take: int) -> None:
        number = self.oracle.get(person, {}).pop(take, 10**6)
        try:
            self.gallery.delete_template(number)
        except TemplateNotFound:
            assert number == 10**6
        else:
            self.erased.add(number)

    @rule(person=people, take=takes, step=st.sampled_from([Step.BEFORE_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY]))
    def die_while_enrolling(self, person: int, take: int, step: Step) -> None:
        is_new = take not in self.oracle.get(person, {})
        self.die_at(step, lambda: self.enrolled(person, take))
        if is_new and step is not Step.BEFORE_COMMIT:
            self.enrol(person, take)  # it is there, under the number that nobody was told

    @rule(person=people, step=st.sampled_from([Step.BEFORE_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY]))
    def die_while_erasing(self, person: int, step: Step) -> None:
        if person not in self.oracle:
            return
        self.die_at(step, lambda: self.gallery.delete_identity(f"person-{person}"))
        if step is not Step.BEFORE_COMMIT:
            self.erased |= set(self.oracle.pop(person).values())

    def die_at(self, step: Step, work: Callable[[], object]) -> None:
        self.dying = step
        with suppress(Died, StoreUnavailable):
            work()
        self.dying = None
        self.begin_again()

    # Upkeep

    @rule()
    def seal(self) -> None:
        assert isinstance(self.gallery._index, FastIndex)
        self.gallery._index.seal()

    @rule()
    def rebuild(self) -> None:
        self.gallery.request_rebuild()

    @rule()
    def save_a_snapshot(self) -> None:
        self.gallery.save_snapshot()

    @rule(step=st.sampled_from([Step.SNAPSHOT_BEGUN, Step.SNAPSHOT_WRITTEN, Step.SNAPSHOT_RENAMED]))
    def die_while_saving(self, step: Step) -> None:
        self.die_at(step, self.gallery.save_snapshot)

    @rule()
    def crash(self) -> None:
        self.begin_again()

    # Copies

    @property
    def snapshot(self) -> Path:
        return self.folder / "index" / f"gallery-{self.gallery.record.id}.snapshot"

    @rule()
    def keep_the_snapshot(self) -> None:
        if self.snapshot.exists():
            shutil.copy(self.snapshot, self.folder / "old.snapshot")
            self.old_snapshot = True

    @precondition(lambda self: self.old_snapshot)
    @rule()
    def crash_and_put_the_old_snapshot_back(self) -> None:
        shutil.copy(self.folder / "old.snapshot", self.snapshot)
        self.begin_again()

    @rule()
    def back_the_database_up(self) -> None:
        with closing(sqlite3.connect(self.folder / "facedex.db")) as here:
            (self.folder / "backup.db").unlink(missing_ok=True)
            with closing(sqlite3.connect(self.folder / "backup.db")) as there:
                here.backup(there)
        self.backup = self.oracle.copied()
        self.erased_then = set(self.erased)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def crash_and_restore_the_backup(self) -> None:
        assert self.backup is not None
        self.end()
        for path in self.folder.glob("facedex.db*"):
            path.unlink()
        shutil.copy(self.folder / "backup.db", self.folder / "facedex.db")
        # The history that was erased in is no more: who is in the backup is in the gallery.
        self.oracle, self.erased = self.backup.copied(), set(self.erased_then)
        self.open_store()
        self.open()

    # What holds

    @rule(person=people, take=takes)
    def identify(self, person: int, take: int) -> None:
        probe = faces()[person, take]
        (face,) = self.gallery.identify(probe[None], Query(limit=PEOPLE, threshold=-1.0)).faces
        found = [(each.identity.external_id, each.template_id) for each in face.candidates]
        assert [name for name, _ in found] == [name for name, _ in self.ranked(probe)]
        assert all(number in self.oracle.numbers for _, number in found)

    def ranked(self, probe: NDArray[np.float32]) -> list[tuple[str, float]]:
        best = {
            f"person-{person}": max(
                float(faces()[person, take].astype(np.float16).astype(np.float64) @ probe) for take in shown
            )
            for person, shown in self.oracle.items()
            if shown
        }
        return sorted(best.items(), key=lambda each: -each[1])

    @invariant()
    def store_and_index_have_one_digest(self) -> None:
        with self.gallery.held() as held:
            standing = held.moment.standing(self.gallery.record)
            assert held.revision == standing.revision
            assert held.index.digest == standing.digest
            assert len(held.index) == len(self.oracle.numbers)

    @rule()
    def examine(self) -> None:
        assert check_gallery(self.gallery).counts == {}

    @invariant()
    def everybody_is_there_and_nobody_else(self) -> None:
        numbers = RowTable(self.gallery.parts).numbers.tolist()
        assert numbers == self.oracle.numbers
        assert not self.erased & set(numbers)


CHEAP = settings(
    max_examples=6,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestGalleryLife = GalleryLife.TestCase
TestGalleryLife.settings = CHEAP


class Trusting(SmallIndexes):
    """Takes the snapshot of any history."""

    def _read(self, gallery: GalleryRecord, path: Path, index: FastIndex) -> Snapshot:
        return read_snapshot(path, self._key(gallery, index), secret=self._store.secret(SECRET))


class TrustingLife(GalleryLife):
    indexes = Trusting


class Forgetful(FastIndex):
    """Never erases what has become a segment."""

    def _find(self, template_id: int) -> tuple[Block | Segment, int] | None:
        return self._places.get(template_id)


class ForgetfulIndexes(SmallIndexes):
    def in_memory(self, gallery: GalleryRecord) -> FastIndex:
        index = super().in_memory(gallery)
        index.__class__ = Forgetful
        return index


class ForgetfulLife(GalleryLife):
    indexes = ForgetfulIndexes


class HastyLife(GalleryLife):
    """Tells that somebody is enrolled before that is committed."""

    def enrolled(self, person: int, take: int) -> int:
        number = super().enrolled(person, take)
        self.store.delete_template(self.gallery.record, number)
        return number


def a_snapshot_outlives_its_history(life: GalleryLife) -> None:
    life.back_the_database_up()
    life.enrol_all_of(0)
    life.save_a_snapshot()
    life.crash_and_restore_the_backup()
    life.enrol_all_of(1)


def somebody_is_erased_from_a_segment(life: GalleryLife) -> None:
    for person in range(PEOPLE):
        life.enrol_all_of(person)
    life.seal()
    life.erase_an_identity(0)


def somebody_is_enrolled(life: GalleryLife) -> None:
    life.enrol(0, 0)
    life.crash()


def look(life: GalleryLife) -> None:
    life.everybody_is_there_and_nobody_else()
    life.store_and_index_have_one_digest()


@pytest.mark.parametrize(
    ("broken", "lived"),
    [
        (TrustingLife, a_snapshot_outlives_its_history),
        (ForgetfulLife, somebody_is_erased_from_a_segment),
        (HastyLife, somebody_is_enrolled),
    ],
)
def test_a_gallery_that_breaks_its_word_is_caught_and_one_that_keeps_it_is_not(
    broken: type[GalleryLife], lived: Callable[[GalleryLife], None]
) -> None:
    for kind in (GalleryLife, broken):
        life = kind()
        lived(life)
        if kind is GalleryLife:
            look(life)
        else:
            with pytest.raises(AssertionError):
                look(life)
        life.teardown()
