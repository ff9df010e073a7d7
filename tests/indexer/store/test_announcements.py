"""Processes over one PostgreSQL tell each other of changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import column, create_engine, func, select, table
from tests.indexer.doubles import MODEL

from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.failpoints import Step
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store.announcements import Listener
from facedex.indexer.store.store import Store

POLICY = policy_to_json(GalleryPolicy())
NEVER = threading.Event()


@pytest.fixture
def url(postgresql: Callable[[], str]) -> str:
    return postgresql()


@pytest.fixture
def stores(url: str) -> Iterator[tuple[Store, Store]]:
    first, second = Store.open(url), Store.open(url)
    first.create_gallery("staff", model=MODEL, policy=POLICY)
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def listener(stores: tuple[Store, Store]) -> Iterator[Listener]:
    listener = stores[0].announcements.listener()
    listener.wait(0.01, NEVER)  # from here on it hears
    yield listener
    listener.close()


def seconds_until_heard(listener: Listener, *, at_most: float) -> float:
    began = time.monotonic()
    listener.wait(at_most, NEVER)
    return time.monotonic() - began


def break_connections(url: str) -> None:
    """All of others to this database."""
    terminated, here = func.pg_terminate_backend(column("pid")), column("datname") == func.current_database()
    engine = create_engine(url)
    with engine.connect() as connection:
        own = column("pid") == func.pg_backend_pid()
        connection.execute(select(terminated).select_from(table("pg_stat_activity")).where(here, ~own))
    engine.dispose()


def test_a_change_of_another_process_is_heard_at_once(stores: tuple[Store, Store], listener: Listener) -> None:
    stores[1].update_policy("staff", POLICY)
    assert seconds_until_heard(listener, at_most=10) < 5


def test_many_changes_are_heard_as_one_or_two(stores: tuple[Store, Store], listener: Listener) -> None:
    for _ in range(20):
        stores[1].update_policy("staff", POLICY)
    heard = 0
    while seconds_until_heard(listener, at_most=0.5) < 0.5:
        heard += 1
    assert 1 <= heard < 20


def test_one_does_not_listen_to_oneself(stores: tuple[Store, Store], listener: Listener) -> None:
    stores[0].update_policy("staff", POLICY)
    assert seconds_until_heard(listener, at_most=0.5) >= 0.5


def test_what_changes_no_gallery_is_not_announced(stores: tuple[Store, Store], listener: Listener) -> None:
    stores[1].secret("something")
    assert seconds_until_heard(listener, at_most=0.5) >= 0.5


def test_a_broken_connection_is_told_and_made_again(stores: tuple[Store, Store], listener: Listener, url: str) -> None:
    break_connections(url)
    with pytest.raises(StoreUnavailable):
        listener.wait(5, NEVER)
    listener.wait(0.01, NEVER)
    stores[1].update_policy("staff", POLICY)
    assert seconds_until_heard(listener, at_most=10) < 5


def test_whoever_waits_can_be_stopped(listener: Listener) -> None:
    stopping = threading.Event()
    threading.Timer(0.1, stopping.set).start()
    began = time.monotonic()
    listener.wait(60, stopping)
    assert time.monotonic() - began < 5


def test_on_sqlite_nothing_is_heard_and_the_time_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store.open(f"sqlite+pysqlite:///{tmp_path_factory.mktemp('store') / 'facedex.db'}")
    assert seconds_until_heard(store.announcements.listener(), at_most=0.1) >= 0.1
    store.close()


def test_a_change_is_acknowledged_although_its_word_cannot_be_said(url: str) -> None:
    """The connection breaks between commit and word."""
    told: list[Step] = []

    def reached(step: Step) -> None:
        if step is Step.AFTER_COMMIT and told:
            told.clear()
            break_connections(url)

    store = Store.open(url, reached=reached)
    store.create_gallery("staff", model=MODEL, policy=POLICY)
    told.append(Step.AFTER_COMMIT)
    before = store.gallery("staff").revision
    store.update_policy("staff", POLICY)
    assert not told
    assert store.gallery("staff").revision == before + 1
    store.close()
