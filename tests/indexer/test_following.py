"""Galleries that follow the change log: one neither waits for another nor fails with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.indexer.doubles import MODEL
from tests.indexer.erasure_site import ErasureSite

from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.gallery import Gallery
from facedex.indexer.policy import GalleryPolicy, policy_to_json

WAIT_SECONDS = 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data")
    yield site
    site.close()


def create(site: ErasureSite, *names: str) -> list[Gallery]:
    """Galleries that are open, each with a change that they have not heard of."""
    for name in names:
        site.store.create_gallery(name, model=MODEL, policy=policy_to_json(GalleryPolicy()))
    galleries = [site.galleries.get(name) for name in names]
    for name in names:
        site.store.update_policy(name, policy_to_json(GalleryPolicy(keep_crops=True)))
    return galleries


def test_a_gallery_that_cannot_be_followed_is_named_and_keeps_no_other_from_it(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = create(site, "a", "b", "c")

    def fail() -> None:
        raise ValueError("a damaged row")

    with monkeypatch.context() as patch:
        patch.setattr(second, "catch_up", fail)
        with pytest.raises(ValueError, match="damaged"):
            site.galleries.follow()
    assert [each.policy.keep_crops for each in (first, second, third)] == [True, False, True]
    site.galleries.follow()
    assert second.policy.keep_crops


def test_a_database_that_is_away_is_asked_once_for_all_galleries(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = create(site, "a", "b")
    asked: list[str] = []

    def away(self: Gallery) -> None:
        asked.append(self.record.name)
        raise StoreUnavailable("away")

    monkeypatch.setattr(Gallery, "catch_up", away)
    with pytest.raises(StoreUnavailable):
        site.galleries.follow()
    assert len(asked) == 1
    assert [each.policy.keep_crops for each in (first, second)] == [False, False]


def test_a_gallery_that_is_created_while_the_log_is_read_stays_open(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = site.store.revisions
    created: list[Gallery] = []

    def revisions() -> dict[str, tuple[int, int]]:
        found = read()
        created.extend(create(site, "new") if not created else [])
        return found

    monkeypatch.setattr(site.store, "revisions", revisions)
    site.galleries.follow()
    assert site.galleries.get("new") is created[0]


def test_a_gallery_that_another_process_deleted_and_created_anew_is_another_one(site: ErasureSite) -> None:
    (old,) = create(site, "staff")
    site.store.delete_gallery("staff")
    site.store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
    site.galleries.follow()
    new = site.galleries.get("staff")
    assert new is not old
    site.galleries.follow()
    assert site.galleries.get("staff") is new


def test_people_are_enrolled_into_one_gallery_while_another_one_is_loaded(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small,) = create(site, "small")
    site.store.create_gallery("large", model=MODEL, policy=policy_to_json(GalleryPolicy()))
    is_loading, may_go_on = threading.Event(), threading.Event()
    catch_up = Gallery.catch_up

    def slow(self: Gallery) -> None:
        if self.record.name == "large":
            is_loading.set()
            assert may_go_on.wait(WAIT_SECONDS)
        catch_up(self)

    monkeypatch.setattr(Gallery, "catch_up", slow)

    def eyes(_gallery: Gallery) -> None:
        """Nobody looks at a photograph here."""

    monkeypatch.setattr(site.galleries, "eyes", eyes)
    with ThreadPoolExecutor() as threads:
        loading = threads.submit(site.galleries.get, "large")
        assert is_loading.wait(WAIT_SECONDS)
        try:
            enroller = threads.submit(site.galleries.enroller, small).result(WAIT_SECONDS)
        finally:
            may_go_on.set()
        assert enroller is site.galleries.enroller(small)
        assert loading.result(WAIT_SECONDS) is site.galleries.get("large")
