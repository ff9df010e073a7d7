from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from tests.indexer.doubles import MODEL, ScriptedPipeline

from facedex.indexer.enroller import Enroller
from facedex.indexer.eyes import OwnEyes
from facedex.indexer.gallery import Gallery
from facedex.indexer.indexes import Indexes
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store.store import Store
from facedex.indexer.vision.pipeline import FacePipeline


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


class House:
    """A gallery over a real database, with a scripted pipeline."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Clock()
        self.pipeline = ScriptedPipeline()
        self.store = Store.open(url, clock=self.clock)
        self.store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
        self.gallery = self.open_gallery()
        self.enroller = Enroller(self.gallery, OwnEyes(cast("FacePipeline", self.pipeline)))

    def open_gallery(self) -> Gallery:
        """As another process, or this one after a restart, would."""
        gallery = Gallery(self.store.gallery("staff"), store=self.store, indexes=Indexes(self.store))
        gallery.catch_up()
        return gallery

    def set_policy(self, policy: GalleryPolicy) -> None:
        self.store.update_policy("staff", policy_to_json(policy))
        self.gallery.catch_up()


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    house = House(database_url)
    yield house
    house.store.close()
