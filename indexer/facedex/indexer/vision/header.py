"""What an image file says of itself before any pixel is decoded."""

import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from facedex.indexer.vision.errors import (
    ImageAnimated,
    ImageFormatUnsupported,
    ImageRefused,
    ImageTooManyPixels,
    ImageUnreadable,
)
from facedex.indexer.vision.orientation import ORIENTATION_TAG, Orientation, orientation_of


class ImageFormat(StrEnum):
    """The formats whose headers are read; of GIF, only to say what is wrong with it."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    BMP = "BMP"
    TIFF = "TIFF"
    GIF = "GIF"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The claims of a file's header; its size is within the limit, and it holds one still picture."""

    image_format: ImageFormat
    upright_size: tuple[int, int]
    """Width and height of the picture as it was seen."""
    orientation: Orientation
    """What remains to be done to the decoded rows."""
    is_plain: bool
    """Whether it is a JPEG or WebP without alpha or inks: OpenCV decodes it right, and faster."""

    @property
    def is_reducible(self) -> bool:
        return self.is_plain and self.image_format is ImageFormat.JPEG


_SIGNATURES = {
    ImageFormat.JPEG: rb"\xff\xd8\xff",
    ImageFormat.PNG: rb"\x89PNG\r\n\x1a\n",
    ImageFormat.WEBP: rb"RIFF....WEBP",
    ImageFormat.BMP: rb"BM",
    ImageFormat.TIFF: rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    ImageFormat.GIF: rb"GIF8[79]a",
}

_FOREIGN_SIGNATURES = {
    "HEIC": rb"....ftyp(?:hei|hev|mif|msf)",
    "AVIF": rb"....ftypavi",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "PSD": rb"8BPS",
    "PDF": rb"%PDF-",
    "SVG": rb"\s*(?:<\?xml[^>]*>\s*)?<svg",
}

_PLAIN_FORMATS = {ImageFormat.JPEG, ImageFormat.WEBP}
"""Not PNG: OpenCV 5 takes gigabytes for a chunk that claims to be that long."""
_PLAIN_MODES = {"L", "RGB"}
_SUPPORTED_MODES = {
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "I;16",
    "I;16L",
    "I;16B",
    "I;16N",
}


def read_header(content: bytes, *, max_pixels: int) -> ImageHeader:
    """Read the claims of a file. Raises nothing but `ImageRefused`, whatever the bytes are."""
    image_format = _recognise(content)
    try:
        _check_claimed_size(content, image_format, max_pixels)
        with open_picture(content, image_format) as image:
            return _examine(image, image_format, content, max_pixels)
    except ImageRefused:
        raise
    except Exception as problem:  # what a parser raises on hostile bytes is not foreseeable
        raise ImageUnreadable(f"the {image_format} header is damaged or incomplete") from problem


def open_picture(content: bytes, image_format: ImageFormat) -> ImageFile.ImageFile:
    """Pillow's lazy picture of a file of a known format, without the global limits and the guessing of `Image.open`."""
    stream = BytesIO(content)
    match image_format:
        case ImageFormat.JPEG:
            return JpegImagePlugin.JpegImageFile(stream)
        case ImageFormat.PNG:
            return PngImagePlugin.PngImageFile(stream)
        case ImageFormat.WEBP:
            return WebPImagePlugin.WebPImageFile(stream)
        case ImageFormat.BMP:
            return BmpImagePlugin.BmpImageFile(stream)
        case ImageFormat.TIFF:
            return TiffImagePlugin.TiffImageFile(stream)
        case ImageFormat.GIF:
            return GifImagePlugin.GifImageFile(stream)


def _recognise(content: bytes) -> ImageFormat:
    for image_format, signature in _SIGNATURES.items():
        if re.match(signature, content, re.DOTALL):
            return image_format
    for name, signature in _FOREIGN_SIGNATURES.items():
        if re.match(signature, content[:4096], re.DOTALL):
            raise ImageFormatUnsupported(name)
    raise ImageUnreadable("this is no image format known here")


def _check_claimed_size(content: bytes, image_format: ImageFormat, max_pixels: int) -> None:
    """Catch what Pillow would allocate for, or stumble over, before it says how large the picture claims to be."""
    if image_format is ImageFormat.PNG:
        _check_size(struct.unpack_from(">II", content, 16), max_pixels)
    if image_format is ImageFormat.WEBP and content[12:16] == b"VP8X":
        _check_size(
            (int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1), max_pixels
        )


def _check_size(size: tuple[int, ...], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooManyPixels(width, height, max_pixels=max_pixels)


def _examine(image: ImageFile.ImageFile, image_format: ImageFormat, content: bytes, max_pixels: int) -> ImageHeader:
    _check_size(image.size, max_pixels)
    _check_still(image, image_format)
    if image.mode not in _SUPPORTED_MODES:
        raise ImageFormatUnsupported(f"{image_format} with pixels of type {image.mode}")
    if image_format is ImageFormat.JPEG and not _jpeg_is_complete(content):
        raise ImageUnreadable("the JPEG ends before its picture does")
    orientation = _orientation(image, image_format)
    width, height = image.size
    return ImageHeader(
        image_format=image_format,
        upright_size=(height, width) if orientation.is_transposed else (width, height),
        orientation=orientation,
        is_plain=_is_plain(image, image_format),
    )


def _check_still(image: ImageFile.ImageFile, image_format: ImageFormat) -> None:
    if getattr(image, "is_animated", False):
        raise ImageAnimated(image_format)
    if image_format is ImageFormat.GIF:
        raise ImageFormatUnsupported(image_format)


def _is_plain(image: Image.Image, image_format: ImageFormat) -> bool:
    return image_format in _PLAIN_FORMATS and image.mode in _PLAIN_MODES and not image.has_transparency_data


def _orientation(image: Image.Image, image_format: ImageFormat) -> Orientation:
    if image_format is ImageFormat.TIFF:  # Pillow itself turns a TIFF upright, in its size and when it decodes
        return Orientation.TOP_LEFT
    try:
        return orientation_of(image.getexif().get(ORIENTATION_TAG))
    except Exception:  # noqa: BLE001 - damaged EXIF says nothing; the picture may still be whole
        return Orientation.TOP_LEFT


_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_END_OF_IMAGE = 0xD9


def _jpeg_is_complete(content: bytes) -> bool:
    """Whether the end-of-image marker is there (ITU-T T.81, B.1). Some decoders paint what is missing grey."""
    position = 2
    while found := _NEXT_MARKER.search(content, position):
        marker, position = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return True
        position += int.from_bytes(content[position : position + 2], "big")
    return False
