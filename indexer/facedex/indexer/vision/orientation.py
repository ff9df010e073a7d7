"""How a photograph was held, by the orientation tag of TIFF 6.0 and EXIF 2.3 (0x0112)."""

from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

ORIENTATION_TAG = 0x0112


class Orientation(IntEnum):
    """Which edges of the upright picture the first stored row and the first stored column are."""

    TOP_LEFT = 1
    TOP_RIGHT = 2
    BOTTOM_RIGHT = 3
    BOTTOM_LEFT = 4
    LEFT_TOP = 5
    RIGHT_TOP = 6
    RIGHT_BOTTOM = 7
    LEFT_BOTTOM = 8

    @property
    def is_transposed(self) -> bool:
        """Whether stored rows are upright columns."""
        return self >= Orientation.LEFT_TOP


def orientation_of(tag: object) -> Orientation:
    """The tag's meaning; anything but 1 to 8 counts as upright, as in browsers."""
    return Orientation(tag) if isinstance(tag, int) and 1 <= tag <= 8 else Orientation.TOP_LEFT


_AROUND_BOTH, _LEFT_TO_RIGHT, _TOP_TO_BOTTOM = -1, 1, 0

_FLIPS = {
    Orientation.TOP_RIGHT: _LEFT_TO_RIGHT,
    Orientation.BOTTOM_RIGHT: _AROUND_BOTH,
    Orientation.BOTTOM_LEFT: _TOP_TO_BOTTOM,
    Orientation.RIGHT_TOP: _LEFT_TO_RIGHT,
    Orientation.RIGHT_BOTTOM: _AROUND_BOTH,
    Orientation.LEFT_BOTTOM: _TOP_TO_BOTTOM,
}


def upright(stored: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """The picture as it was seen; `stored` itself where it is upright already."""
    turned = cv2.transpose(stored) if orientation.is_transposed else stored
    flip = _FLIPS.get(orientation)
    return np.asarray(turned if flip is None else cv2.flip(turned, flip), dtype=np.uint8)
