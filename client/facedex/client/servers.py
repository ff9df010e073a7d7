"""What a server tells about itself."""

from dataclasses import dataclass


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
class ServerInfo:
    """The server's version, models and limits."""

    version: str
    detector: ModelInfo
    embedder: ModelInfo
    max_image_bytes: int
    max_image_pixels: int
    max_message_bytes: int
    max_concurrent_requests: int
