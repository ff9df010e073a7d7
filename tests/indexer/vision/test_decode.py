"""From bytes to an upright picture: what is accepted, what is refused and why."""

from __future__ import annotations

import struct
import time
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facedex.indexer.vision.decode import ImageLimits, Picture, Reduction, read_photograph
from facedex.indexer.vision.errors import (
    ImageAnimated,
    ImageEmpty,
    ImageFormatUnsupported,
    ImageRefused,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageUnreadable,
)

LIMITS = ImageLimits()

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
WIDTH, HEIGHT = 96, 64


def decode(content: bytes, limits: ImageLimits = LIMITS) -> Picture:
    return read_photograph(content, limits).decode()


def scene() -> Image.Image:
    """A smooth picture whose four corners differ: red, green, blue and grey."""
    corners = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [120, 120, 120]]], np.uint8)
    return Image.fromarray(corners).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def sixteen_bit_grey() -> Image.Image:
    return Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)


def sixteen_bit_colour_png() -> bytes:
    wide = np.asarray(scene())[:, :, ::-1].astype(np.uint16) * 257
    return cv2.imencode(".png", wide)[1].tobytes()


def frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.new("RGB", (WIDTH, HEIGHT), "blue")]}


COLOUR = {
    "jpeg": saved(scene(), "JPEG", quality=95),
    "progressive jpeg": saved(scene(), "JPEG", quality=95, progressive=True),
    "cmyk jpeg": saved(scene().convert("CMYK"), "JPEG", quality=95),
    "png": saved(scene(), "PNG"),
    "16-bit colour png": sixteen_bit_colour_png(),
    "opaque alpha png": saved(scene().convert("RGBA"), "PNG"),
    "palette png": saved(scene().quantize(256), "PNG"),
    "webp": saved(scene(), "WEBP", quality=95),
    "lossless alpha webp": saved(scene().convert("RGBA"), "WEBP", lossless=True),
    "bmp": saved(scene(), "BMP"),
    "tiff": saved(scene(), "TIFF"),
    "lzw tiff": saved(scene(), "TIFF", compression="tiff_lzw"),
    "cmyk tiff": saved(scene().convert("CMYK"), "TIFF"),
}
GREY = {
    "grey jpeg": saved(scene().convert("L"), "JPEG", quality=95),
    "grey png": saved(scene().convert("L"), "PNG"),
    "grey alpha png": saved(scene().convert("LA"), "PNG"),
    "16-bit grey png": saved(sixteen_bit_grey(), "PNG"),
    "16-bit grey tiff": saved(sixteen_bit_grey(), "TIFF"),
}


@pytest.mark.parametrize("kind", COLOUR)
def test_every_colour_format_shows_the_same_picture(kind: str) -> None:
    difference = decode(COLOUR[kind])[:, :, ::-1].astype(int) - np.asarray(scene())
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("kind", GREY)
def test_grey_pictures_become_three_equal_channels(kind: str) -> None:
    picture = decode(GREY[kind])
    assert (picture == picture[:, :, :1]).all()
    assert np.abs(picture[:, :, 0].astype(int) - np.asarray(scene().convert("L"))).mean() < 4


def test_a_black_and_white_picture_keeps_black_and_white() -> None:
    assert sorted(np.unique(decode(saved(scene().convert("1"), "PNG")))) == [0, 255]


def test_what_is_transparent_becomes_white() -> None:
    assert (decode(saved(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "PNG")) == 255).all()


def test_a_transparent_colour_of_a_png_without_alpha_becomes_white() -> None:
    content = saved(Image.new("RGB", (8, 8), (10, 20, 30)), "PNG", transparency=(10, 20, 30))
    assert (decode(content) == 255).all()


def test_an_adobe_cmyk_jpeg_is_not_shown_as_its_negative() -> None:
    content = saved(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert (decode(content) > 250).all()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_of_the_eight_orientations_ends_upright(orientation: int, image_format: str) -> None:
    photograph = read_photograph(stored_with_orientation(orientation, image_format), LIMITS)
    picture = photograph.decode()
    assert (photograph.width, photograph.height) == (WIDTH, HEIGHT) == (picture.shape[1], picture.shape[0])
    assert np.abs(picture[:, :, ::-1].astype(int) - np.asarray(scene())).mean() < 6


def stored_with_orientation(orientation: int, image_format: str) -> bytes:
    """The scene as a camera held in that way stores it."""
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    image = scene()
    for step in undo.get(orientation, []):
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, image_format, exif=exif, quality=95)


def test_an_orientation_that_does_not_exist_counts_as_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert decode(saved(scene(), "JPEG", exif=exif)).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", [*COLOUR, *GREY])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_picture_is_unreadable(kind: str, share: float) -> None:
    content = (COLOUR | GREY)[kind]
    with pytest.raises(ImageUnreadable):
        decode(content[: int(len(content) * share)])


def test_a_jpeg_that_lacks_only_its_last_bytes_is_unreadable(portrait: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="ends before"):
        decode(portrait[:-200])


def test_what_a_phone_appends_to_a_jpeg_does_no_harm(portrait: bytes) -> None:
    assert (decode(portrait + b"\0 trailer of a phone") == decode(portrait)).all()


def test_a_jpeg_of_two_pictures_counts_as_its_first() -> None:
    content = saved(scene(), "MPO", **frames())
    assert decode(content).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_or_pages_are_refused(image_format: str) -> None:
    with pytest.raises(ImageAnimated) as refusal:
        decode(saved(scene(), image_format, **frames()))
    assert refusal.value.reason == "IMAGE_ANIMATED"


FOREIGN = {
    "GIF": saved(scene(), "GIF"),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(64),
    "AVIF": b"\0\0\0\x18ftypavif" + bytes(64),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
    "PSD": b"8BPS" + bytes(64),
    "PDF": b"%PDF-1.7",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_picture_in_another_format_is_told_its_format(name: str) -> None:
    with pytest.raises(ImageFormatUnsupported, match=name):
        decode(FOREIGN[name])


def test_pixels_that_are_no_colours_are_refused() -> None:
    depths = Image.fromarray(np.ones((8, 8), np.float32))
    with pytest.raises(ImageFormatUnsupported, match="type F"):
        decode(saved(depths, "TIFF"))


@pytest.mark.parametrize("content", [b"hello, I am no picture", b"BM", b"\xff\xd8\xff", b"\0" * 1000, b"RIFF1234WEBP"])
def test_what_is_no_picture_is_unreadable(content: bytes) -> None:
    with pytest.raises(ImageUnreadable):
        decode(content)


def test_no_bytes_are_an_empty_photograph() -> None:
    with pytest.raises(ImageEmpty):
        decode(b"")


def test_a_file_over_the_byte_limit_is_refused_with_both_figures(portrait: bytes) -> None:
    with pytest.raises(ImageTooManyBytes) as refusal:
        decode(portrait, ImageLimits(max_bytes=1000))
    assert (refusal.value.byte_count, refusal.value.max_bytes) == (len(portrait), 1000)


@pytest.mark.parametrize("kind", [*COLOUR, *GREY])
def test_the_pixel_limit_holds_for_every_format(kind: str) -> None:
    with pytest.raises(ImageTooManyPixels) as refusal:
        decode((COLOUR | GREY)[kind], ImageLimits(max_pixels=WIDTH * HEIGHT - 1))
    assert (refusal.value.width, refusal.value.height) == (WIDTH, HEIGHT)


def test_the_header_of_a_huge_png_is_refused_before_any_pixel_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(ImageTooManyPixels, match="50000×50000"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk)


def test_a_png_chunk_that_claims_gigabytes_is_answered_at_once() -> None:
    content = COLOUR["png"]
    place = content.index(b"IDAT") - 4
    started = time.perf_counter()
    with suppress(ImageRefused):
        decode(content[:place] + b"\x7f\xff\xff\xf0" + content[place + 4 :])
    assert time.perf_counter() - started < 0.5


def test_the_header_of_a_huge_webp_is_refused_before_any_pixel_is_decoded() -> None:
    size = (16_000 - 1).to_bytes(3, "little")
    with pytest.raises(ImageTooManyPixels, match="16000×16000"):
        decode(b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size + size + bytes(40))


@pytest.mark.parametrize("reduction", list(Reduction))
def test_a_jpeg_is_reduced_while_it_is_decoded(reduction: Reduction, people: Path) -> None:
    photograph = read_photograph((people / "groups" / "1.jpg").read_bytes(), LIMITS)
    picture = photograph.decode(reduction)
    assert picture.shape[:2] == (-(-photograph.height // reduction), -(-photograph.width // reduction))


def test_the_strongest_reduction_leaves_the_wanted_side(people: Path) -> None:
    photograph = read_photograph((people / "groups" / "1.jpg").read_bytes(), LIMITS)
    reductions = [photograph.strongest_reduction(side) for side in (900, 800, 400, 399, 100, 1)]
    assert reductions == [1, 1, 2, 2, 8, 8]


def test_only_jpeg_is_reduced() -> None:
    assert read_photograph(COLOUR["png"], LIMITS).strongest_reduction(1) is Reduction.NONE


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *(content[:40] for content in (COLOUR | GREY).values())]))
def test_arbitrary_bytes_raise_nothing_but_a_refusal(rest: bytes, start: bytes) -> None:
    decode_or_refuse(start + rest)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_picture_raises_nothing_but_a_refusal(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([*(COLOUR | GREY).values(), FOREIGN["GIF"]])))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(content))


def decode_or_refuse(content: bytes) -> None:
    with suppress(ImageRefused):
        picture = decode(content, ImageLimits(max_pixels=1_000_000))
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
