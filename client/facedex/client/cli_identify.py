"""`facedex identify`, `verify`, `compare` and `detect`: who is on a photograph."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from facedex.client.cli_findings import (
    detection_as_json,
    detection_as_table,
    identification_as_json,
    identification_as_table,
    verification_as_json,
    verification_as_line,
)
from facedex.client.cli_session import (
    ABOUT_ONE_PHOTOGRAPH,
    ExitCode,
    Filters,
    GalleryName,
    IdentityId,
    Json,
    LargestFace,
    Photograph,
    Photographs,
    Threshold,
    complain,
    connected,
    filters_of,
    spoken,
)
from facedex.client.identification import (
    Decision,
    Detection,
    FaceSelection,
    Identification,
    SearchMode,
)

Save = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT",
        help="Draw boxes and names: a file, or with several photographs a folder for them.",
        show_default=False,
    ),
]
Vectors = Annotated[bool, typer.Option("--vectors", help="With --json: each face's vector too.")]
TargetFpir = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="What the gallery's certificate has to promise instead.", show_default=False),
]
Excluded = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="IDENTITY", help="Not this identity.", show_default=False)
]


def identify(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    gallery: GalleryName,
    photographs: Photographs,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most candidates for each face.")] = 5,
    threshold: Threshold = None,
    target_fpir: TargetFpir = None,
    mode: Annotated[
        SearchMode,
        typer.Option(case_sensitive=False, help="INVESTIGATION lists the best candidates whatever their score."),
    ] = SearchMode.IDENTIFICATION,
    largest: LargestFace = False,
    filters: Filters = None,
    exclude: Excluded = None,
    save: Save = None,
    vectors: Vectors = False,
    json: Json = False,
) -> None:
    """Tell who is on each photograph.

    Exits with 0 whoever was found: the answer is what is printed. With 1 where a photograph could not be examined;
    the others are.
    """
    wanted = filters_of(filters)
    faces = FaceSelection.LARGEST if largest else FaceSelection.ALL
    show = identification_as_json if json else identification_as_table
    drawings = _drawings(save, photographs)
    with connected(context) as client:

        def examine(photograph: Path) -> None:
            image = photograph.read_bytes()
            found = client.identify(
                gallery,
                image,
                limit=limit,
                threshold=threshold,
                target_fpir=target_fpir,
                filters=wanted,
                excluded_identities=exclude or (),
                faces=faces,
                mode=mode,
                return_vectors=vectors,
            )
            show(photograph, found)
            if photograph in drawings:
                _save_identified(image, found, drawings[photograph])

        _examine_each(photographs, examine)


def verify(
    context: typer.Context,
    gallery: GalleryName,
    identity: IdentityId,
    photograph: Photograph,
    *,
    threshold: Threshold = None,
    largest: LargestFace = False,
    json: Json = False,
) -> None:
    """Tell whether a photograph shows an enrolled person.

    Exits with 3 where it does not.
    """
    faces = FaceSelection.LARGEST if largest else None
    with connected(context) as client:
        answer = client.verify(gallery, identity, photograph.read_bytes(), threshold=threshold, faces=faces)
    show = verification_as_json if json else verification_as_line
    show(photograph, answer)
    _end_with(answer.decision)


def compare(
    context: typer.Context,
    photograph: Photograph,
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Another photograph.")],
    *,
    gallery: Annotated[
        str, typer.Option(help="Take its model and threshold; otherwise the server's.", show_default=False)
    ] = "",
    threshold: Threshold = None,
    largest: LargestFace = False,
    json: Json = False,
) -> None:
    """Tell whether two photographs show the same person.

    Exits with 3 where they do not.
    """
    faces = FaceSelection.LARGEST if largest else None
    images = photograph.read_bytes(), reference.read_bytes()
    with connected(context) as client:
        answer = client.verify_images(*images, gallery=gallery, threshold=threshold, faces=faces)
    show = verification_as_json if json else verification_as_line
    show(photograph, answer)
    _end_with(answer.decision)


def detect(
    context: typer.Context, photographs: Photographs, *, save: Save = None, vectors: Vectors = False, json: Json = False
) -> None:
    """Find the faces on each photograph and measure them."""
    show = detection_as_json if json else detection_as_table
    drawings = _drawings(save, photographs)
    with connected(context) as client:

        def examine(photograph: Path) -> None:
            image = photograph.read_bytes()
            found = client.detect(image, return_vectors=vectors)
            show(photograph, found)
            if photograph in drawings:
                _save_detected(image, found, drawings[photograph])

        _examine_each(photographs, examine)


def _examine_each(photographs: Sequence[Path], examine: Callable[[Path], None]) -> None:
    """Examines every photograph, also after one that cannot be; ends with an error where there was such a one."""
    failed = 0
    for photograph in photographs:
        try:
            examine(photograph)
        except BrokenPipeError:
            raise  # nobody reads on, for instance `| head -1`: that is no fault of the photograph
        except ABOUT_ONE_PHOTOGRAPH as error:
            complain(spoken(error) if isinstance(error, OSError) else f"{photograph}: {spoken(error)}")
            failed += 1
    if failed:
        raise typer.Exit(ExitCode.ERROR)


def _drawings(save: Path | None, photographs: Sequence[Path]) -> dict[Path, Path]:
    """Where each drawing goes: never over a photograph, nor over another drawing."""
    if save is None:
        return {}
    if len(photographs) == 1 and not save.is_dir():
        drawings = {photographs[0]: save}
    else:
        drawings = {photograph: save / photograph.name for photograph in photographs}
    originals = {photograph.resolve() for photograph in photographs}
    for photograph, drawing in drawings.items():
        if drawing.resolve() in originals:
            raise typer.BadParameter(f"the drawing of {photograph} would replace a photograph", param_hint="--save")
    if len(set(drawings.values())) < len(drawings):
        raise typer.BadParameter(
            f"several photographs have one name, and so would their drawings in {save}", param_hint="--save"
        )
    if save not in drawings.values():
        save.mkdir(parents=True, exist_ok=True)
    return drawings


def _save_identified(image: bytes, found: Identification, path: Path) -> None:
    from facedex.client.drawing import label_of, save_labelled  # noqa: PLC0415 - only drawing needs Pillow

    labels = [label_of(face) for face in found.faces]
    save_labelled(image, [label for label in labels if label is not None], path)


def _save_detected(image: bytes, found: Detection, path: Path) -> None:
    from facedex.client.drawing import label_of_detected, save_labelled  # noqa: PLC0415 - only drawing needs Pillow

    save_labelled(image, [label_of_detected(face) for face in found.faces], path)


def _end_with(decision: Decision) -> None:
    if decision is not Decision.MATCH:
        raise typer.Exit(ExitCode.ANSWER_IS_NO)
