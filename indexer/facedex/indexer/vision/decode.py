"""From the bytes of an image file to the pixels of an upright photograph, under limits.

Nothing is decoded before the header was read and its claims were held against the limits. Whatever the bytes are, the
only error that leaves this module is `ImageRefused`.
"""

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facedex.indexer.vision.errors import ImageEmpty, ImageTooManyBytes, ImageUnreadable
from facedex.indexer.vision.header import ImageHeader, open_picture, read_header
from facedex.indexer.vision.orientation import upright

Picture = NDArray[np.uint8]
"""Height × width × 3, in the order blue, green, red."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How large a photograph may be; held against the file and its header before any pixel is decoded."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 100_000_000


class Reduction(IntEnum):
    """By what a JPEG's sides are divided while it is decoded: detail left out is never computed."""

    NONE = 1
    HALF = 2
    QUARTER = 4
    EIGHTH = 8


@dataclass(frozen=True, slots=True)
class Photograph:
    """An image file whose header is within the limits; width and height are those of the upright picture."""

    content: bytes
    header: ImageHeader

    @property
    def width(self) -> int:
        return self.header.upright_size[0]

    @property
    def height(self) -> int:
        return self.header.upright_size[1]

    def strongest_reduction(self, smallest_longer_side: int) -> Reduction:
        """The strongest reduction that leaves the longer side at least this many pixels; NONE but for JPEG."""
        if not self.header.is_reducible:
            return Reduction.NONE
        longer_side = max(self.width, self.height)
        return max(step for step in Reduction if step is Reduction.NONE or longer_side >= step * smallest_longer_side)

    def decode(self, reduction: Reduction = Reduction.NONE) -> Picture:
        """The upright picture, its sides divided by `reduction`. `ImageUnreadable` where the file is damaged."""
        try:
            stored = self._decode_stored(reduction)
        except Exception as problem:  # what a parser raises on hostile bytes is not foreseeable
            raise ImageUnreadable("the pixels are damaged or incomplete") from problem
        return upright(stored, self.header.orientation)

    def _decode_stored(self, reduction: Reduction) -> Picture:
        if self.header.is_plain:
            return _decode_with_opencv(self.content, reduction)
        return _decode_with_pillow(self.content, self.header)


def read_photograph(content: bytes, limits: ImageLimits) -> Photograph:
    """Look at the file's header only; `ImageRefused` says why no face can be looked for."""
    if not content:
        raise ImageEmpty
    if len(content) > limits.max_bytes:
        raise ImageTooManyBytes(len(content), max_bytes=limits.max_bytes)
    header = read_header(content, max_pixels=limits.max_pixels)
    return Photograph(content, header)


_OPENCV_FLAGS = {
    Reduction.NONE: cv2.IMREAD_COLOR,
    Reduction.HALF: cv2.IMREAD_REDUCED_COLOR_2,
    Reduction.QUARTER: cv2.IMREAD_REDUCED_COLOR_4,
    Reduction.EIGHTH: cv2.IMREAD_REDUCED_COLOR_8,
}


def _decode_with_opencv(content: bytes, reduction: Reduction) -> Picture:
    flags = _OPENCV_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), flags), dtype=np.uint8)


def _decode_with_pillow(content: bytes, header: ImageHeader) -> Picture:
    with open_picture(content, header.image_format) as image:
        image.load()
        return np.ascontiguousarray(np.asarray(_in_colour(image))[:, :, ::-1])


def _in_colour(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(sixteen_bits: NDArray[np.generic]) -> NDArray[np.uint8]:
    return (sixteen_bits.astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, image).convert("RGB")
