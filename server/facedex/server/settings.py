from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from facedex.indexer.devices import DeviceChoice
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.indexer.vision.scan import SMALLEST_FACE_PX
from facedex.indexer.vision.workbench import available_cores
from facedex.server.exposure import Openness
from facedex.server.recorder import AuditChoice

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.server.tls import TlsFiles

DEFAULT_MAX_MESSAGE_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a server can be told. One value is made at start and never changes."""

    data: Path
    """Folder of the database and the added models."""
    listen: str = "127.0.0.1:50051"
    """Address and port; port 0 takes a free one."""
    database: str | None = None
    """URL of the database; None: a SQLite file in the data folder."""
    detector: str = BUILTIN_DETECTOR
    embedder: str = BUILTIN_EMBEDDER
    """Model of new galleries."""
    smallest_face_px: float = SMALLEST_FACE_PX
    """Shorter side of the smallest face that is looked for, in pixels of the photograph; larger is faster."""
    image_limits: ImageLimits = field(default_factory=ImageLimits)
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    max_concurrent_requests: int = 64
    max_concurrent_streams: int = 16
    workers: int = field(default_factory=available_cores)
    """Photographs that are worked on at the same time."""
    device: DeviceChoice = DeviceChoice.CPU
    """What detects, embeds and searches."""
    follow_interval_seconds: float = 0.25
    """How often the change log is read for changes of other processes."""
    check_every: int = 1_000
    """One search in so many is done again exactly, to count what the fast index missed; 0: none."""
    milvus: str | None = None
    """Address of a Milvus that holds and searches vectors; None: this process does."""
    data_keys: str | None = None
    """Folder or URL of the data keys; None: nobody is encrypted."""
    template_secret: Path | None = None
    """File with the secret of transformed vectors; None: no gallery's are."""
    erasure_horizon_seconds: float = 86_400.0
    """By when after an erasure the last copies in the data folder are gone."""
    drain_seconds: float = 10.0
    """How long requests in flight may take after SIGTERM."""
    tls: TlsFiles | None = None
    """Certificate and key; None: nothing is encrypted."""
    openness: Openness = Openness.CLOSED
    """What is allowed beyond this machine."""
    audit: AuditChoice = AuditChoice.WITH_KEYS
    """When it is written down who did what."""
    metrics_listen: str | None = None
    """Address and port of the page that Prometheus reads; None: there is none."""
    otlp_endpoint: str | None = None
    """Where traces are sent by OTLP over gRPC, http://HOST:PORT or https://…; None: none are made."""

    @property
    def database_url(self) -> str:
        return self.database or sqlite_url(self.data / "facedex.db")

    @property
    def erasure_horizon(self) -> timedelta:
        return timedelta(seconds=self.erasure_horizon_seconds)
