"""A server in the tests' own process, which starts in a moment."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facedex.server.app import App
from facedex.server.settings import Settings


@contextmanager
def app_over(data: Path, **settings: Any) -> Generator[App]:
    settings.setdefault("listen", "127.0.0.1:0")
    app = App(Settings(data, **settings))
    app.start()
    try:
        yield app
    finally:
        app.stop()
