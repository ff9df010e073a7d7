from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.indexer.erasure_site import ErasureSite

from facedex.indexer.store.engine import sqlite_url


@pytest.fixture
def source(database_url: str, tmp_path: Path) -> Iterator[ErasureSite]:
    """The installation that archives are made of."""
    site = ErasureSite(tmp_path / "source", url=database_url)
    yield site
    site.close()


@pytest.fixture
def target(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest, source: ErasureSite
) -> Iterator[ErasureSite]:
    """An empty installation over the same kind of database, with the same clock."""
    url = sqlite_url(tmp_path / "target.db")
    if not database_url.startswith("sqlite"):
        make_database: Callable[[], str] = request.getfixturevalue("postgresql")
        url = make_database()
    site = ErasureSite(tmp_path / "target", url=url, clock=source.clock)
    yield site
    site.close()
