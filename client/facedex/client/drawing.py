"""Boxes and names on a photograph. The only place that uses Pillow, which is loaded when something is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from facedex.client.faces import Box
from facedex.client.identification import Decision, DetectedFace, IdentifiedFace

GREEN, AMBER, GREY = "#1a9850", "#e08214", "#666666"
COLOURS = {Decision.MATCH: GREEN, Decision.REVIEW: AMBER}


@dataclass(frozen=True, slots=True)
class Label:
    """A box with a line of text."""

    box: Box
    text: str
    colour: str


def label_of(face: IdentifiedFace) -> Label | None:
    """What to write at a face: the person and the score, or that nobody was found."""
    if face.box is None:
        return None
    if face.decision is Decision.NO_MATCH or not face.candidates:
        return Label(face.box, "unknown", GREY)
    best = face.candidates[0]
    doubt = "" if face.decision is Decision.MATCH else "? "
    text = f"{doubt}{best.display_name or best.identity} {best.score:.2f}"
    return Label(face.box, text, COLOURS.get(face.decision, GREY))


def label_of_detected(detected: DetectedFace) -> Label:
    return Label(detected.face.box, f"{detected.face.quality.detector_score:.2f}", GREEN)


def save_labelled(photograph: bytes, labels: Sequence[Label], path: Path) -> None:
    """Draws the labels on the upright photograph and saves it in the format of the path's suffix.

    Raises OSError where the file cannot be written, or the suffix names no format.
    """
    with Image.open(BytesIO(photograph)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    draw = ImageDraw.Draw(upright)
    unit = max(upright.size) / 400
    for label in labels:
        _draw(draw, label, upright.size, unit=unit)
    try:
        upright.save(path)
    except (KeyError, ValueError):  # no format has this suffix, or one that is only read
        raise OSError(f"{path}: no picture can be written in this format; name it .jpg or .png") from None


def _draw(draw: ImageDraw.ImageDraw, label: Label, size: tuple[int, int], *, unit: float) -> None:
    box, line = label.box, max(2, round(unit))
    corners = (box.x, box.y, box.x + box.width, box.y + box.height)
    draw.rectangle(corners, outline=label.colour, width=line)
    font = _font(max(11.0, 7 * unit))
    left, top, right, bottom = draw.textbbox((0, 0), label.text, font=font)
    width, height = right - left + 4 * line, bottom - top + 3 * line
    x = min(max(box.x, 0), max(0, size[0] - width))
    y = box.y - height if box.y >= height else min(corners[3], size[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=label.colour)
    draw.text((x + 2 * line - left, y + 1.5 * line - top), label.text, fill="white", font=font)


def _font(size_px: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """DejaVu where the system has it, because it knows most alphabets; otherwise what Pillow brings."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size_px)
    except OSError:
        return ImageFont.load_default(size_px)
