"""The model manifest: everything that must be known of a network besides its weights."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, TypeVar

from facedex.indexer.vision.errors import ManifestInvalid
from facedex.indexer.vision.face import Landmarks

Choice = TypeVar("Choice", bound=StrEnum)

_SHA256 = r"[0-9a-f]{64}"


class ModelKind(StrEnum):
    """What a network is for."""

    DETECTOR = "detector"
    EMBEDDER = "embedder"


class ChannelOrder(StrEnum):
    """The order of the colour planes that the network expects."""

    BGR = "BGR"
    RGB = "RGB"


class Border(StrEnum):
    """What an aligned crop shows beyond the edges of the photograph."""

    CONSTANT = "constant"
    """Black."""
    REPLICATE = "replicate"
    """The nearest pixel of the photograph."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a network is given: `(pixel - mean) * scale`, planes in the order `channels`."""

    channels: ChannelOrder
    mean: float
    scale: float


@dataclass(frozen=True, slots=True)
class RefinerContract:
    """The second network of a detector, which looks at each face that the first one found. Its file is NAME.refiner.onnx.

    Its outputs are `landmarks` (n, 5, 2), in pixels of its crop, and `score` (n, 1).
    """

    sha256: str
    """Digest of its file, 64 lower-case hexadecimal digits."""
    input: ModelInput
    side: int
    """Width and height of its crops."""
    alignment: Landmarks
    """Where the first one's landmarks lie on a crop."""
    score_threshold: float
    """What scores less is no face after all."""


@dataclass(frozen=True, slots=True)
class DetectorContract:
    """The rest of a detector's manifest. The one layout is YuNet's: cls, obj, bbox and kps at each stride."""

    multiple_of: int
    """Width and height of the input must be multiples of it."""
    strides: tuple[int, ...]
    score_threshold: float
    """Faces below this score are not reported."""
    nms_iou: float
    """Of two boxes that overlap more than this, one goes."""
    smallest_face_px: float
    """Shorter side of the smallest face that is found reliably, at the input."""
    refiner: RefinerContract | None


@dataclass(frozen=True, slots=True)
class EmbedderContract:
    """The rest of an embedder's manifest."""

    width: int
    height: int
    alignment: Landmarks
    """Where the five landmarks of a face must lie on the crop, in pixels of the crop."""
    border: Border
    dimension: int
    mirror_average: bool
    """Whether the vector of the mirrored crop is added before normalising."""
    default_threshold: float | None
    """The cosine to use where nothing better is known."""
    threshold_basis: str
    """Where that cosine comes from."""


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """A network's name, digest, terms and contract. One of `detector` and `embedder` is there, as `kind` says."""

    name: str
    kind: ModelKind
    sha256: str
    """Digest of the `.onnx` file, 64 lower-case hexadecimal digits."""
    licence: str
    commercial_use: bool
    """Whether the licence of the weights, and of what they were trained on, allows commercial use."""
    source: str
    input: ModelInput
    detector: DetectorContract | None
    embedder: EmbedderContract | None

    @property
    def dimension(self) -> int:
        """Length of the vectors; 0 for a detector."""
        return self.embedder.dimension if self.embedder else 0

    @property
    def digest(self) -> str:
        """What the model is known by: the digest of its file, or, where it has two, the SHA-256 of their digests."""
        if self.refiner is None:
            return self.sha256
        return hashlib.sha256(f"{self.sha256} {self.refiner.sha256}".encode()).hexdigest()

    @property
    def refiner(self) -> RefinerContract | None:
        """What the second network of a detector is, where it has one."""
        return self.detector.refiner if self.detector else None

    @property
    def default_threshold(self) -> float | None:
        return self.embedder.default_threshold if self.embedder else None

    @property
    def threshold_basis(self) -> str:
        return self.embedder.threshold_basis if self.embedder else ""


def parse_manifest(text: str) -> ModelManifest:
    """Read a manifest from its TOML text; `ManifestInvalid` names the first field that is wrong, missing or unknown."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ManifestInvalid("file", f"is no TOML ({problem})") from problem
    return _manifest(_Table("", document))


def _manifest(table: "_Table") -> ModelManifest:
    kind = table.choice("kind", ModelKind)
    read_contract = _read_detector if kind is ModelKind.DETECTOR else _read_embedder
    fields = table.table("input")
    model_input = _read_input(fields)
    detector, embedder = read_contract(table, fields)
    manifest = ModelManifest(
        name=table.matching("name", r"(?!.*\.refiner$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
        kind=kind,
        sha256=table.matching("sha256", _SHA256),
        licence=table.text("licence"),
        commercial_use=table.truth("commercial_use"),
        source=table.text("source"),
        input=model_input,
        detector=detector,
        embedder=embedder,
    )
    for part in (fields, table):
        part.refuse_unknown()
    return manifest


def _read_input(fields: "_Table") -> ModelInput:
    return ModelInput(
        channels=fields.choice("channels", ChannelOrder),
        mean=fields.number("mean", 0, 255),
        scale=fields.number("scale", 1e-6, 1e3),
    )


def _read_detector(table: "_Table", fields: "_Table") -> tuple[DetectorContract, None]:
    output = table.table("output")
    output.matching("layout", "yunet")
    contract = DetectorContract(
        multiple_of=fields.whole("multiple_of", 1, 256),
        strides=output.wholes("strides", 1, 256),
        score_threshold=output.number("score_threshold", 0, 1, default=0.6),
        nms_iou=output.number("nms_iou", 0, 1, default=0.3),
        smallest_face_px=output.number("smallest_face_px", 1, 640, default=16),
        refiner=_read_refiner(table.table("refiner", default={})),
    )
    output.refuse_unknown()
    return contract, None


def _read_refiner(table: "_Table") -> RefinerContract | None:
    if not table.values:
        return None
    contract = RefinerContract(
        sha256=table.matching("sha256", _SHA256),
        input=_read_input(table),
        side=table.whole("side", 16, 256),
        alignment=table.landmarks("points"),
        score_threshold=table.number("score_threshold", 0, 1, default=0.5),
    )
    table.refuse_unknown()
    return contract


def _read_embedder(table: "_Table", fields: "_Table") -> tuple[None, EmbedderContract]:
    alignment, output = table.table("alignment"), table.table("output")
    threshold = table.table("threshold", default={})
    contract = EmbedderContract(
        width=fields.whole("width", 16, 1024),
        height=fields.whole("height", 16, 1024),
        alignment=alignment.landmarks("points"),
        border=alignment.choice("border", Border, default=Border.CONSTANT),
        dimension=output.whole("dimension", 1, 8192),
        mirror_average=output.truth("mirror_average", default=False),
        default_threshold=threshold.number("cosine", -1, 1) if threshold.values else None,
        threshold_basis=threshold.text("basis") if threshold.values else "",
    )
    for part in (alignment, output, threshold):
        part.refuse_unknown()
    return None, contract


_REQUIRED: Any = object()


class _Table:
    """One table of the document; each reader checks a key and marks it as known."""

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        self.values = values
        self._path = path
        self._known: set[str] = set()

    def _take(self, key: str, default: Any) -> Any:
        self._known.add(key)
        value = self.values.get(key, default)
        if value is _REQUIRED:
            raise self._invalid(key, "is missing")
        return value

    def _invalid(self, key: str, problem: str) -> ManifestInvalid:
        return ManifestInvalid(f"{self._path}{key}", problem)

    def refuse_unknown(self) -> None:
        for key in self.values:
            if key not in self._known:
                raise self._invalid(key, "is not a field of a manifest")

    def table(self, key: str, *, default: Any = _REQUIRED) -> "_Table":
        value = self._take(key, default)
        if not isinstance(value, dict):
            raise self._invalid(key, "must be a table")
        return _Table(f"{self._path}{key}.", value)

    def text(self, key: str) -> str:
        value = self._take(key, _REQUIRED)
        if not isinstance(value, str) or not value.strip():
            raise self._invalid(key, "must be a text")
        return value

    def matching(self, key: str, pattern: str) -> str:
        value = self.text(key)
        if not re.fullmatch(pattern, value):
            raise self._invalid(key, f"must match {pattern}")
        return value

    def choice(self, key: str, choices: type[Choice], *, default: Any = _REQUIRED) -> Choice:
        value = self._take(key, default)
        if value not in list(choices):
            raise self._invalid(key, f"must be one of {', '.join(choices)}")
        return choices(value)

    def truth(self, key: str, *, default: Any = _REQUIRED) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._invalid(key, "must be true or false")
        return value

    def number(self, key: str, lowest: float, highest: float, *, default: Any = _REQUIRED) -> float:
        value = self._take(key, default)
        if not _is_number(value) or not lowest <= value <= highest:
            raise self._invalid(key, f"must be a number from {lowest} to {highest}")
        return float(value)

    def whole(self, key: str, lowest: int, highest: int) -> int:
        value = self._take(key, _REQUIRED)
        if not _is_whole(value) or not lowest <= value <= highest:
            raise self._invalid(key, f"must be a whole number from {lowest} to {highest}")
        return int(value)

    def wholes(self, key: str, lowest: int, highest: int) -> tuple[int, ...]:
        values = self._take(key, _REQUIRED)
        if (
            not isinstance(values, list)
            or not values
            or not all(_is_whole(v) and lowest <= v <= highest for v in values)
        ):
            raise self._invalid(key, f"must be a list of whole numbers from {lowest} to {highest}")
        return tuple(values)

    def landmarks(self, key: str) -> Landmarks:
        points = self._take(key, _REQUIRED)
        if not isinstance(points, list) or len(points) != 5 or not all(_is_point(point) for point in points):
            raise self._invalid(key, "must be five points of two numbers each")
        left_eye, right_eye, nose, left_mouth, right_mouth = ((float(x), float(y)) for x, y in points)
        return left_eye, right_eye, nose, left_mouth, right_mouth


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(number) for number in value)
