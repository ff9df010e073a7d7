"""A group that is enrolled in one transaction leaves what the same people leave one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, select
from tests.indexer.store.test_store import MODEL, NOW, template

from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.enrolling import Enrolled, EnrolmentEntry
from facedex.indexer.store.records import ChangeOp, GalleryRecord, IdentityDetails, NewEnrolment, RememberedRequest
from facedex.indexer.store.schema import change, gallery, identity, request
from facedex.indexer.store.schema import template as template_table
from facedex.indexer.store.store import Store

GROUPS, GROUP_ENTRIES = 4, 12
COLUMNS = (
    (gallery, ("id", "revision")),
    (identity, ("id", "external_id", "display_name", "attributes", "purpose", "consent_reference", "expires_at")),
    (template_table, ("id", "identity_id", "source_digest", "vector", "quality", "model_digest")),
    (change, ("seq", "op", "template_id", "identity_id")),
    (request, ("request_id", "digest", "answer")),
)


@pytest.fixture
def database(database_url: str) -> Iterator[tuple[Store, str]]:
    with closing(Store.open(database_url, clock=lambda: NOW)) as store:
        yield store, database_url


def new_gallery(store: Store) -> GalleryRecord:
    return store.create_gallery("staff", model=MODEL, policy={})


def entry(
    name: str, *numbers: int, request_id: str = "", display_name: str | None = None, team: str | None = None
) -> EnrolmentEntry:
    def answer(done: Enrolled) -> RememberedRequest | None:
        seen = {"templates": [each.template_id for each in done.templates], "revision": done.revision}
        return RememberedRequest(request_id, "d" * 64, seen) if request_id else None

    details = IdentityDetails(name, display_name, None if team is None else {"team": team})
    return EnrolmentEntry(NewEnrolment(details, MODEL.digest, tuple(template(each) for each in numbers)), answer)


def random_groups(seed: int) -> list[list[EnrolmentEntry]]:
    """Few people and photographs, so that most come again, in one group and in several."""
    chance = np.random.default_rng(seed)
    groups: list[list[EnrolmentEntry]] = []
    for group in range(GROUPS):
        groups.append([])
        for place in range(GROUP_ENTRIES):
            person = int(chance.integers(6))
            numbers = (10 * person + chance.integers(5, size=chance.integers(0, 4))).tolist()
            groups[-1].append(
                entry(
                    f"p{person}",
                    *numbers,
                    request_id=f"r{group}-{place}" if chance.random() < 0.3 else "",
                    display_name=str(chance.choice(["Ada", "Eve"])) if chance.random() < 0.5 else None,
                    team=str(chance.choice(["red", "blue"])) if chance.random() < 0.5 else None,
                )
            )
    return groups


def rows(url: str) -> dict[str, list[Any]]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with closing(engine.connect()) as connection:
        return {
            table.name: sorted(
                (tuple(row) for row in connection.execute(select(*(table.c[name] for name in names)))), key=repr
            )
            for table, names in COLUMNS
        }


@pytest.mark.parametrize("seed", range(4))
def test_a_group_leaves_what_its_people_leave_one_after_the_other(
    database: tuple[Store, str], tmp_path: Path, seed: int
) -> None:
    store, url = database
    groups = random_groups(seed)
    single_url = sqlite_url(tmp_path / "single.db")
    with closing(Store.open(single_url, clock=lambda: NOW)) as single:
        staff, other = new_gallery(store), new_gallery(single)
        at_once = [done for group in groups for done in store.enrol_all(staff, group)]
        one_by_one = [done for group in groups for each in group for done in single.enrol_all(other, [each])]
    assert at_once == one_by_one
    assert rows(url) == rows(single_url)
    assert len(rows(url)["template"]) > GROUPS  # the groups were no empty ones


def test_what_is_told_again_is_no_change(database: tuple[Store, str]) -> None:
    store, _ = database
    staff = new_gallery(store)
    told = [entry("ada", number, display_name="Ada", team="red") for number in range(3)]
    assert [done.revision for done in store.enrol_all(staff, told)] == [1, 2, 3]
    (last,) = store.enrol_all(staff, [entry("ada", 3, display_name="Ada L.", team="red")])
    assert last.revision == 5
    ops = [each.op for batch in store.changes(staff.id, after=0) for each in batch]
    assert ops == [ChangeOp.ADD, ChangeOp.ADD, ChangeOp.ADD, ChangeOp.UPDATE, ChangeOp.ADD]


def test_one_bad_entry_leaves_nothing_of_its_group(database: tuple[Store, str]) -> None:
    store, url = database
    staff = new_gallery(store)
    before = rows(url)

    def fail(_: Enrolled) -> RememberedRequest:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.enrol_all(staff, [entry("ada", 1), EnrolmentEntry(entry("eve", 2).enrolment, fail)])
    assert rows(url) == before
