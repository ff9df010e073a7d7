"""What all tests share: photographs, databases, a running server."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.databases import postgresql_databases

from facedex.indexer.store.engine import sqlite_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
PEOPLE = ROOT / "tests" / "data" / "people"


def pytest_configure() -> None:
    """How the programs that tests start are run.

    Ctrl-C works in them, also where a script runs the tests in its background. And whatever the environment says, they need
    not compile each module at each of some hundred starts.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def people() -> Path:
    """The sample people: photographs of synthetic persons."""
    return PEOPLE


@pytest.fixture(scope="session")
def assets() -> Path:
    """Third-party models and photographs that are not part of the repository.

    Where they are promised (FACEDEX_REQUIRE_ASSETS=1, as on the project's own machines), a test that needs them fails
    without them; elsewhere it is skipped and says why.
    """
    folder = Path(os.environ.get("FACEDEX_ASSETS", ROOT.parent / "shared" / "assets"))
    if folder.is_dir():
        return folder
    message = f"the assets are not at {folder}; set FACEDEX_ASSETS to where they are"
    if os.environ.get("FACEDEX_REQUIRE_ASSETS") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes empty databases of a real PostgreSQL, which comes from a Python package.

    Its folder is outside of pytest's own, which each run that begins meanwhile closes to other users, PostgreSQL's too.
    """
    with (
        TemporaryDirectory(prefix="facedex-postgresql-", ignore_cleanup_errors=True) as folder,
        postgresql_databases(Path(folder)) as make_database,
    ):
        yield make_database


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: each test that asks for one runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "facedex.db")
    make_database: Callable[[], str] = request.getfixturevalue("postgresql")
    return make_database()
