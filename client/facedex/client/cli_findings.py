"""How what was found on a photograph is shown, as tables and as JSON."""

from pathlib import Path

from rich.table import Table

from facedex.client.cli_output import (
    box_text,
    cell,
    counted,
    decision_cell,
    new_table,
    print_json,
    print_line,
    print_table,
)
from facedex.client.identification import (
    Decision,
    DecisionReason,
    DetectedFace,
    Detection,
    Identification,
    IdentifiedFace,
    OperatingPoint,
    Verification,
)

REMARKS = {
    DecisionReason.REVIEW_BAND: "in the review band",
    DecisionReason.RUNNER_UP_TOO_CLOSE: "two people score nearly the same",
    DecisionReason.NOBODY_TO_COMPARE: "there is nobody to compare with",
    DecisionReason.POOR_PROBE: "the face is too poor for the promised error rate",
    DecisionReason.NO_CALIBRATED_PROMISE: "the promised error rate is not kept",
}
"""What to say beside a decision that the score alone does not explain."""


def identification_as_json(photograph: Path, found: Identification) -> None:
    print_json(found, photograph=str(photograph))


def identification_as_table(photograph: Path, found: Identification) -> None:
    print_line(f"{photograph}: {_faces(len(found.faces))}, {_promise(found.operating_point)}")
    if not found.faces:
        return
    table = new_table("face", "decision", "identity", "name", "score", "", right=["score"])
    for face in found.faces:
        _add_identified(table, face)
    print_table(table)


def verification_as_json(photograph: Path, answer: Verification) -> None:
    print_json(answer, photograph=str(photograph))


def verification_as_line(photograph: Path, answer: Verification) -> None:
    same = "the same person" if answer.decision is Decision.MATCH else "not the same person"
    point = _spoken(answer.operating_point)
    print_line(f"{photograph}: {answer.decision}, {same}; score {answer.score:.3f}, {point}")


def detection_as_json(photograph: Path, found: Detection) -> None:
    print_json(found, photograph=str(photograph))


def detection_as_table(photograph: Path, found: Detection) -> None:
    print_line(f"{photograph}: {_faces(len(found.faces))}, {found.image_width}×{found.image_height} px")
    if not found.faces:
        return
    numbers = ["detector", "px", "sharp", "bright", "yaw°", "pitch°", "roll°"]
    table = new_table("face", *numbers, right=numbers)
    for face in found.faces:
        _add_detected(table, face)
    print_table(table)


def _add_identified(table: Table, face: IdentifiedFace) -> None:
    place, decision = cell(box_text(face.box)), decision_cell(face.decision)
    remark = cell(REMARKS.get(face.reason, ""), style="dim")
    if not face.candidates:
        table.add_row(place, decision, cell("–", style="dim"), "", "", remark)
    for rank, candidate in enumerate(face.candidates):
        person = cell(candidate.identity), cell(candidate.display_name), f"{candidate.score:.3f}"
        table.add_row(*(place, decision, *person, remark) if rank == 0 else ("", "", *person, ""))


def _add_detected(table: Table, detected: DetectedFace) -> None:
    quality = detected.face.quality
    angles = (quality.yaw_degrees, quality.pitch_degrees, quality.roll_degrees)
    table.add_row(
        box_text(detected.face.box),
        f"{quality.detector_score:.2f}",
        f"{quality.size_px:.0f}",
        f"{quality.sharpness:.0f}",
        f"{quality.brightness:.0f}",
        *(f"{angle:+.0f}" for angle in angles),
    )


def _faces(count: int) -> str:
    return counted(count, "face", "faces") if count else "no face found"


def _promise(point: OperatingPoint) -> str:
    spoken = f"threshold {point.threshold:.3f}"
    if point.broken_promise:
        return f"{spoken}; no promise: {point.broken_promise}"
    if point.fpir is not None:
        spoken += f", FPIR at most {point.fpir.upper:.2%}" + ("" if point.fpir.is_measured else " (extrapolated)")
    return spoken


def _spoken(point: OperatingPoint) -> str:
    return f"threshold {point.threshold:.3f} ({point.basis})" if point.basis else f"threshold {point.threshold:.3f}"
