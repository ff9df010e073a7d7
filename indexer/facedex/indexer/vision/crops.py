"""Aligned crops as they are kept for a later change of model: PNG, without loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode_crop(crop: NDArray[np.uint8]) -> bytes:
    """A crop (height, width, 3), BGR, as a PNG file."""
    _, encoded = cv2.imencode(".png", crop)
    return encoded.tobytes()


def decode_crop(data: bytes) -> NDArray[np.uint8]:
    """The inverse of `encode_crop`."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(decoded, np.uint8)
