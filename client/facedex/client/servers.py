"""What a server tells about itself."""

from dataclasses import dataclass

from facedex.client.identification import OperatingPoint


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model and its terms. `dimension` is 0 and `default_threshold`, a cosine, None for a detector."""

    name: str
    digest: str
    licence: str
    commercial_use: bool
    dimension: int
    default_threshold: float | None
    threshold_basis: str


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """How a gallery is searched, and why so.

    The codes have `bits_per_component`, 0 where every template is compared exactly. They were chosen for the cosine
    `operating_score`, where `share_compared_exactly` of the templates are compared exactly after the scan.
    """

    gallery: str
    template_count: int
    revision: int
    bits_per_component: float
    operating_score: float
    share_compared_exactly: float
    reason: str


@dataclass(frozen=True, slots=True)
class PromiseInfo:
    """What a gallery with a certificate promises now.

    Of its live searches `watched_searches` were compared with what the certificate expects; `drift` says why the promise
    seems no longer to hold, and is empty where nothing was noticed.
    """

    gallery: str
    operating_point: OperatingPoint
    watched_searches: int
    drift: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server's version, models, limits and indexes.

    `loaded_share` is 1 when the server answers. Of `index_checked_total` searches that were done again exactly, the fast
    index had missed `index_missed_total` identities.
    """

    version: str
    detector: ModelInfo
    embedder: ModelInfo
    max_image_bytes: int
    max_image_pixels: int
    max_message_bytes: int
    max_concurrent_requests: int
    loaded_share: float
    indexes: tuple[IndexInfo, ...]
    index_checked_total: int
    index_missed_total: int
    promises: tuple[PromiseInfo, ...]
    devices: str
    """What detects, embeds and searches, and why that was chosen, for people; empty where an older server does not tell."""
