"""The store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from facedex.indexer.errors import (
    GalleryExists,
    GalleryNotFound,
    IdentityNotFound,
    StoreUnavailable,
    TemplateNotFound,
)
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.enrolling import Enrolled
from facedex.indexer.store.migrate import MIGRATIONS, known_revisions
from facedex.indexer.store.records import (
    AttributeFilter,
    Change,
    ChangeOp,
    GalleryRecord,
    IdentityDetails,
    ModelRecord,
    NewEnrolment,
    NewTemplate,
    RememberedRequest,
)
from facedex.indexer.store.schema import metadata
from facedex.indexer.store.store import Store

MODEL = ModelRecord("ab" * 32, "tiny", 4, "Apache-2.0", 0.5, "a guess")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store.open(database_url, clock=lambda: NOW)
    yield store
    store.close()


@pytest.fixture
def gallery(store: Store) -> GalleryRecord:
    return store.create_gallery("staff", model=MODEL, policy={"a": 1})


def template(number: int) -> NewTemplate:
    vector = np.random.default_rng(number).standard_normal(4).astype(np.float32)
    return NewTemplate((vector / np.linalg.norm(vector)).astype(np.float32), f"{number:064x}", {"size_px": 80.0})


def enrol(store: Store, gallery: GalleryRecord, external_id: str, *numbers: int, **details: object) -> Enrolled:
    known = IdentityDetails(external_id, **details)  # type: ignore[arg-type]
    return store.enrol(gallery, NewEnrolment(known, MODEL.digest, tuple(template(each) for each in numbers)))


def log(store: Store, gallery: GalleryRecord) -> list[Change]:
    return [change for batch in store.changes(gallery.id, after=0) for change in batch]


def test_a_gallery_is_read_as_it_was_created(store: Store, gallery: GalleryRecord) -> None:
    assert store.gallery("staff") == gallery
    assert (gallery.model, gallery.policy, gallery.revision, gallery.created_at) == (MODEL, {"a": 1}, 0, NOW)


@pytest.mark.usefixtures("gallery")
def test_a_gallery_name_is_taken_once(store: Store) -> None:
    with pytest.raises(GalleryExists, match="staff"):
        store.create_gallery("staff", model=MODEL, policy={})


def test_an_unknown_gallery_is_named_in_the_error(store: Store) -> None:
    with pytest.raises(GalleryNotFound, match="visitors"):
        store.gallery("visitors")


def test_what_was_enrolled_is_read_back(store: Store, gallery: GalleryRecord) -> None:
    enrolled = enrol(store, gallery, "ada", 1, 2, display_name="Ada", attributes={"site": "north"})
    identity = store.identity(gallery, "ada")
    assert [each.id for each in identity.templates] == [each.template_id for each in enrolled.templates]
    assert (identity.display_name, identity.attributes) == ("Ada", {"site": "north"})
    assert identity.templates[0].quality == {"size_px": 80.0}
    np.testing.assert_allclose(store.vectors(gallery, "ada")[0], template(1).vector, atol=1e-3)


def test_the_same_photograph_of_an_identity_is_added_once(store: Store, gallery: GalleryRecord) -> None:
    first = enrol(store, gallery, "ada", 1)
    again = enrol(store, gallery, "ada", 1, 2, 2)
    assert [each.is_new for each in again.templates] == [False, True, False]
    assert again.templates[0].template_id == first.templates[0].template_id
    assert again.templates[1].template_id == again.templates[2].template_id
    assert store.gallery("staff").template_count == 2


def test_an_enrolment_without_details_leaves_what_is_known(store: Store, gallery: GalleryRecord) -> None:
    enrol(store, gallery, "ada", 1, display_name="Ada", attributes={"site": "north"})
    enrol(store, gallery, "ada", 2)
    assert store.identity(gallery, "ada").display_name == "Ada"
    enrol(store, gallery, "ada", 3, attributes={"site": "south"})
    assert store.identity(gallery, "ada").attributes == {"site": "south"}


def test_every_change_has_a_number_in_commit_order(store: Store, gallery: GalleryRecord) -> None:
    enrol(store, gallery, "ada", 1, 2)
    enrol(store, gallery, "bob", 3)
    erased = store.delete_identity(gallery, "ada")
    changes = log(store, gallery)
    assert [change.seq for change in changes] == [1, 2, 3, 4, 5]
    assert [change.op for change in changes] == [ChangeOp.ADD] * 3 + [ChangeOp.ERASE] * 2
    assert erased.revision == store.gallery("staff").revision == 5


def test_the_log_no_longer_holds_the_vector_of_an_erased_template(store: Store, gallery: GalleryRecord) -> None:
    enrol(store, gallery, "ada", 1)
    enrol(store, gallery, "bob", 2)
    store.delete_identity(gallery, "ada")
    assert [not change.vectors for change in log(store, gallery)] == [True, False, True]


def test_concurrent_enrolments_leave_no_gap_and_no_double_in_the_log(store: Store, gallery: GalleryRecord) -> None:
    def work(worker: int) -> None:
        for number in range(5):
            enrol(store, gallery, f"person-{worker}-{number}", 100 * worker + number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [change.seq for change in log(store, gallery)] == list(range(1, 31))


def test_a_template_number_is_never_used_again(store: Store, gallery: GalleryRecord) -> None:
    first = enrol(store, gallery, "ada", 1).templates[0].template_id
    store.delete_template(gallery, first)
    assert enrol(store, gallery, "ada", 1).templates[0].template_id > first


def test_deleting_what_is_not_there_is_an_error(store: Store, gallery: GalleryRecord) -> None:
    with pytest.raises(IdentityNotFound):
        store.delete_identity(gallery, "ada")
    with pytest.raises(TemplateNotFound, match="17"):
        store.delete_template(gallery, 17)
    assert store.gallery("staff").revision == 0


def test_a_template_of_another_gallery_cannot_be_deleted(store: Store, gallery: GalleryRecord) -> None:
    other = store.create_gallery("visitors", model=MODEL, policy={})
    template_id = enrol(store, gallery, "ada", 1).templates[0].template_id
    with pytest.raises(TemplateNotFound):
        store.delete_template(other, template_id)


def test_identities_come_in_pages_by_id(store: Store, gallery: GalleryRecord) -> None:
    for number, name in enumerate(["b", "C", "a", "ä", "B"]):
        enrol(store, gallery, name, number)
    first = store.identities(gallery, limit=3)
    rest = store.identities(gallery, after=first[-1].external_id, limit=3)
    assert [each.external_id for each in (*first, *rest)] == sorted(["b", "C", "a", "ä", "B"])


def test_filters_hold_for_all_keys_and_any_value(store: Store, gallery: GalleryRecord) -> None:
    enrol(store, gallery, "ada", 1, attributes={"site": "north", "shift": "day"})
    enrol(store, gallery, "bob", 2, attributes={"site": "south", "shift": "day"})
    enrol(store, gallery, "eve", 3, attributes={"site": "south", 'odd "key" $.x': "it's"})

    def found(*filters: AttributeFilter) -> list[str]:
        return [each.external_id for each in store.identities(gallery, filters=filters)]

    assert found(AttributeFilter("site", frozenset({"south", "west"}))) == ["bob", "eve"]
    assert found(AttributeFilter("site", frozenset({"south"})), AttributeFilter("shift", frozenset({"day"}))) == ["bob"]
    assert found(AttributeFilter('odd "key" $.x', frozenset({"it's"}))) == ["eve"]
    assert found(AttributeFilter("nothing", frozenset({"x"}))) == []


def test_deleting_a_gallery_deletes_everybody_in_it(store: Store, gallery: GalleryRecord) -> None:
    enrol(store, gallery, "ada", 1)
    assert store.delete_gallery("staff").identity_count == 1
    again = store.create_gallery("staff", model=MODEL, policy={})
    assert again.id != gallery.id
    assert (again.template_count, log(store, again)) == (0, [])
    with pytest.raises(GalleryNotFound):
        enrol(store, gallery, "ada", 1)


def test_the_first_answer_to_a_request_is_kept_with_the_change(store: Store, gallery: GalleryRecord) -> None:
    remembered = RememberedRequest("r1", "d", {"results": [1]})
    enrolment = NewEnrolment(IdentityDetails("ada"), MODEL.digest, (template(1),))
    store.enrol(gallery, enrolment, answer_for=lambda _: remembered)
    assert store.remembered_among(gallery, ["r1"]) == {"r1": remembered}
    assert store.forget_requests(before=NOW + timedelta(days=1)) == 1
    assert store.remembered_among(gallery, ["r1"]) == {}


def test_a_transaction_that_fails_leaves_nothing(store: Store, gallery: GalleryRecord) -> None:
    def fail(_: Enrolled) -> None:
        raise RuntimeError("on purpose")

    enrolment = NewEnrolment(IdentityDetails("ada"), MODEL.digest, (template(1),))
    with pytest.raises(RuntimeError, match="on purpose"):
        store.enrol(gallery, enrolment, answer_for=fail)
    assert store.gallery("staff") == gallery
    assert log(store, gallery) == []


def test_a_change_of_policy_is_a_change_of_the_log(store: Store, gallery: GalleryRecord) -> None:
    assert store.update_policy("staff", {"b": 2}).policy == {"b": 2}
    assert store.revisions() == {"staff": (gallery.id, 1)}


def test_opening_again_finds_what_was_there(database_url: str) -> None:
    first = Store.open(database_url)
    gallery = first.create_gallery("staff", model=MODEL, policy={})
    enrol(first, gallery, "ada", 1)
    first.close()
    second = Store.open(database_url)
    assert second.identity(gallery, "ada").external_id == "ada"
    second.close()


def test_two_servers_may_start_on_an_empty_database_at_once(database_url: str) -> None:
    errors: list[Exception] = []

    def open_store() -> None:
        try:
            Store.open(database_url).close()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=open_store) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_migrations_make_the_schema(store: Store) -> None:
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_the_files_of_the_migrations_are_named_after_their_revisions() -> None:
    scripts = ScriptDirectory(str(resources.files(MIGRATIONS)))
    assert [each.revision for each in scripts.walk_revisions()] == [*reversed(known_revisions())]


def test_acknowledged_means_on_disk(store: Store) -> None:
    with store._engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
            }
            assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
        else:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"


def test_a_database_that_cannot_be_written_is_a_named_error_without_the_data(tmp_path: Path) -> None:
    store = Store.open(sqlite_url(tmp_path / "a.db"))
    gallery = store.create_gallery("staff", model=MODEL, policy={})
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE template")
    with pytest.raises(StoreUnavailable, match="no such table") as raised:
        enrol(store, gallery, "secret-name", 1)
    assert "secret-name" not in str(raised.value)


def test_a_folder_that_does_not_exist_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        Store.open(sqlite_url(tmp_path / "missing" / "a.db"))
