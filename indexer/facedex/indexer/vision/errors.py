"""What can go wrong between the bytes of a photograph and a unit vector.

VisionError
├── ImageRefused             the caller's fault: send another picture; `reason` is for programs
│   ├── ImageEmpty           no bytes at all
│   ├── ImageTooManyBytes    the file is larger than the limit
│   ├── ImageTooManyPixels   width × height is larger than the limit
│   ├── ImageUnreadable      truncated, damaged, or no picture
│   ├── ImageAnimated        several frames or pages; which one is meant is the caller's to say
│   └── ImageFormatUnsupported   a picture, in a format or pixel type that is not read here
└── ModelError               the operator's fault: data or system
    ├── ManifestInvalid      the manifest's text does not say what a manifest must
    ├── ModelNotFound        no model of this name in the folder, or none of this kind
    ├── ModelExists          another model has this name already
    ├── ModelDigestMismatch  the file is not the one that the manifest describes
    ├── ModelUnusable        the file is no network, or one of another shape than the manifest says
    └── DownloadFailed       the network, the host, or what it sent
"""

from pathlib import Path
from typing import ClassVar


class VisionError(Exception):
    """Base of all errors of `facedex.indexer.vision`."""


class ImageRefused(VisionError):
    """A picture that no face can be looked for in; `reason` is stable and made for programs."""

    reason: ClassVar[str] = "IMAGE_REFUSED"


class ImageEmpty(ImageRefused):
    """No bytes."""

    reason = "IMAGE_EMPTY"

    def __init__(self) -> None:
        super().__init__("the photograph has 0 bytes: send the content of an image file")


class ImageTooManyBytes(ImageRefused):
    """More bytes than the limit."""

    reason = "IMAGE_TOO_MANY_BYTES"

    def __init__(self, byte_count: int, *, max_bytes: int) -> None:
        super().__init__(f"the photograph has {byte_count} bytes, {max_bytes} are allowed: send a smaller file")
        self.byte_count = byte_count
        self.max_bytes = max_bytes


class ImageTooManyPixels(ImageRefused):
    """More pixels than the limit; found in the header, before any memory is taken for them."""

    reason = "IMAGE_TOO_MANY_PIXELS"

    def __init__(self, width: int, height: int, *, max_pixels: int) -> None:
        super().__init__(f"the photograph has {width}×{height} pixels, {max_pixels} are allowed: send it scaled down")
        self.width = width
        self.height = height
        self.max_pixels = max_pixels


class ImageUnreadable(ImageRefused):
    """Truncated or damaged, or not a picture."""

    reason = "IMAGE_UNREADABLE"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the photograph cannot be read ({problem}): send a complete image file")
        self.problem = problem


class ImageAnimated(ImageRefused):
    """Several frames or pages."""

    reason = "IMAGE_ANIMATED"

    def __init__(self, image_format: str) -> None:
        super().__init__(
            f"the {image_format} has several frames or pages: send the one that is meant as a still picture"
        )
        self.image_format = image_format


class ImageFormatUnsupported(ImageRefused):
    """A picture in a format or pixel type that is not read here."""

    reason = "IMAGE_FORMAT_UNSUPPORTED"

    def __init__(self, image_format: str) -> None:
        super().__init__(f"{image_format} is not supported: send JPEG, PNG, WebP, BMP or TIFF")
        self.image_format = image_format


class ModelError(VisionError):
    """A model file, its manifest, or the way to them is at fault."""


class ManifestInvalid(ModelError):
    """The manifest does not say what a manifest must; `field` names the place, as `table.key`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"manifest: {field}: {problem}")
        self.field = field
        self.problem = problem


class ModelNotFound(ModelError):
    """No model of this name and kind."""

    def __init__(self, name: str, *, known: tuple[str, ...]) -> None:
        super().__init__(
            f"there is no model {name!r} here: choose one of {', '.join(known) or '(none)'}, or add it first"
        )
        self.name = name
        self.known = known


class ModelExists(ModelError):
    """The name is taken by another file; a name never changes what it stands for."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is the name of another model, or is described otherwise: choose another name in the manifest"
        )
        self.name = name


class ModelDigestMismatch(ModelError):
    """The file is not the one that the manifest describes."""

    def __init__(self, file: Path, *, expected: str, actual: str) -> None:
        super().__init__(f"{file.name} has sha256 {actual}, {expected} is expected: fetch the file again")
        self.file = file
        self.expected = expected
        self.actual = actual


class ModelUnusable(ModelError):
    """The file is no network that can do what the manifest says."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"model {name!r} cannot be used: {problem}")
        self.name = name
        self.problem = problem


class DownloadFailed(ModelError):
    """The file did not arrive; what has arrived is kept, and the next try goes on from there."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"download of {address} failed: {problem}")
        self.address = address
        self.problem = problem
