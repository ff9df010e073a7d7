"""`facedex galleries`: listing, creating, changing and erasing galleries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Annotated

import typer

from facedex.client.cli_enrol import DuplicatesChoice, MislabelledChoice, SeveralFacesChoice
from facedex.client.cli_erasures import ReceiptFile, check_receipt_file, keep_receipt
from facedex.client.cli_output import (
    cell,
    counted,
    days_text,
    details,
    moment_text,
    new_table,
    print_json,
    print_line,
    print_table,
)
from facedex.client.cli_session import GalleryName, Json, Yes, confirm_erasing, connected, pairs
from facedex.client.galleries import (
    UNCHANGED,
    DecisionPolicy,
    EnrolmentPolicy,
    Gallery,
    GuardAction,
    QualityLimits,
    SeveralFaces,
)

galleries = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Galleries and their rules.")

LIMITS = tuple(field.name for field in fields(QualityLimits))
Cosine = Annotated[
    float | None,
    typer.Option("--threshold", min=-1, max=1, show_default=False, help="A score from this cosine on is a match."),
]
TargetFpir = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, show_default=False, help="Share of strangers that may be taken for somebody; needs a calibration."
    ),
]
ReviewFrom = Annotated[
    float | None,
    typer.Option(min=-1, max=1, show_default=False, help="A score from this cosine up to the threshold is for review."),
]
RunnerUpMargin = Annotated[
    float | None,
    typer.Option(min=0, max=2, show_default=False, help="Review where the second person scores nearer than this."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=NUMBER", show_default=False, help=f"Least quality: {', '.join(LIMITS)}."),
]
RetentionDays = Annotated[
    float | None,
    typer.Option(min=0, show_default=False, help="How long identities are kept; 0: until they are deleted."),
]
KeepCrops = Annotated[
    bool | None,
    typer.Option(
        "--keep-crops/--discard-crops", show_default=False, help="Keep aligned crops for a later change of model."
    ),
]


@galleries.command("list")
def list_(context: typer.Context, *, json: Json = False) -> None:
    """List the galleries."""
    with connected(context) as client:
        found = list(client.list_galleries())
    if json:
        for gallery in found:
            print_json(gallery)
    else:
        _print_list(found)


@galleries.command()
def show(context: typer.Context, gallery: GalleryName, *, json: Json = False) -> None:
    """Show a gallery with its rules."""
    show = print_json if json else _print_gallery
    with connected(context) as client:
        show(client.get_gallery(gallery))


@galleries.command()
def create(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    gallery: GalleryName,
    *,
    threshold: Cosine = None,
    review_from: ReviewFrom = None,
    runner_up_margin: RunnerUpMargin = None,
    several_faces: SeveralFacesChoice = None,
    duplicates: DuplicatesChoice = None,
    mislabelled: MislabelledChoice = None,
    quality_limit: Limits = None,
    retention_days: RetentionDays = None,
    keep_crops: KeepCrops = None,
    json: Json = False,
) -> None:
    """Create an empty gallery. Rules that are not named are the server's own."""
    decision = _decision_policy(DecisionPolicy(), threshold, None, review_from, runner_up_margin)
    enrolment = _enrolment_policy(EnrolmentPolicy(), several_faces, duplicates, mislabelled, _limits(quality_limit))
    show = print_json if json else _print_gallery
    with connected(context) as client:
        created = client.create_gallery(
            gallery,
            decision_policy=decision,
            enrolment_policy=enrolment,
            retention=_retention(retention_days),
            keep_crops=bool(keep_crops),
        )
    show(created)


@galleries.command()
def update(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    gallery: GalleryName,
    *,
    threshold: Cosine = None,
    target_fpir: TargetFpir = None,
    review_from: ReviewFrom = None,
    runner_up_margin: RunnerUpMargin = None,
    several_faces: SeveralFacesChoice = None,
    duplicates: DuplicatesChoice = None,
    mislabelled: MislabelledChoice = None,
    quality_limit: Limits = None,
    retention_days: RetentionDays = None,
    keep_crops: KeepCrops = None,
    json: Json = False,
) -> None:
    """Change the rules that are named; the others stay."""
    limits = _limits(quality_limit)
    show = print_json if json else _print_gallery
    with connected(context) as client:
        now = client.get_gallery(gallery)
        decision = _decision_policy(now.decision_policy, threshold, target_fpir, review_from, runner_up_margin)
        enrolment = _enrolment_policy(now.enrolment_policy, several_faces, duplicates, mislabelled, limits)
        changed = client.update_gallery(
            gallery,
            decision_policy=UNCHANGED if decision == now.decision_policy else decision,
            enrolment_policy=UNCHANGED if enrolment == now.enrolment_policy else enrolment,
            retention=UNCHANGED if retention_days is None else _retention(retention_days),
            keep_crops=UNCHANGED if keep_crops is None else keep_crops,
        )
    show(changed)


@galleries.command()
def delete(
    context: typer.Context, gallery: GalleryName, *, yes: Yes = False, receipt: ReceiptFile = None, json: Json = False
) -> None:
    """Erase a gallery with everybody in it, for ever."""
    with connected(context) as client:
        count = client.get_gallery(gallery).identity_count
        if not yes:
            confirm_erasing(f"gallery {gallery} with {counted(count, 'person', 'people')}")
        check_receipt_file(receipt)
        erased = client.delete_gallery(gallery)
    if json:
        print_json(erased, gallery=gallery)
    else:
        print_line(f"erased gallery {gallery} with {counted(erased.identity_count, 'person', 'people')}")
    keep_receipt(erased.receipt, receipt)


def _decision_policy(
    now: DecisionPolicy,
    threshold: float | None,
    target_fpir: float | None,
    review_from: float | None,
    runner_up_margin: float | None,
) -> DecisionPolicy:
    if threshold is not None and target_fpir is not None:
        raise typer.BadParameter("give --threshold or --target-fpir, not both")
    # One takes the place of the other.
    cosine, target = (
        (now.cosine, now.target_fpir) if threshold is None and target_fpir is None else (threshold, target_fpir)
    )
    return DecisionPolicy(
        cosine=cosine,
        target_fpir=target,
        review_cosine=now.review_cosine if review_from is None else review_from,
        runner_up_margin=now.runner_up_margin if runner_up_margin is None else runner_up_margin,
    )


def _enrolment_policy(
    now: EnrolmentPolicy,
    several_faces: SeveralFaces | None,
    duplicates: GuardAction | None,
    mislabelled: GuardAction | None,
    limits: Mapping[str, float],
) -> EnrolmentPolicy:
    return EnrolmentPolicy(
        several_faces=several_faces or now.several_faces,
        duplicate_action=duplicates or now.duplicate_action,
        mislabel_action=mislabelled or now.mislabel_action,
        quality_limits=replace(now.quality_limits, **limits),
    )


def _limits(texts: Sequence[str] | None) -> dict[str, float]:
    return {name: _limit(name, number) for name, number in pairs(texts, option="--quality-limit")}


def _limit(name: str, number: str) -> float:
    if name not in LIMITS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(LIMITS)}", param_hint="--quality-limit")
    try:
        return float(number)
    except ValueError:
        raise typer.BadParameter(f"{number!r} is no number", param_hint="--quality-limit") from None


def _retention(days: float | None) -> timedelta | None:
    return timedelta(days=days) if days else None


def _print_list(found: Iterable[Gallery]) -> None:
    table = new_table("gallery", "people", "templates", "model", "created (UTC)", right=["people", "templates"])
    for gallery in found:
        counts = str(gallery.identity_count), str(gallery.template_count)
        table.add_row(cell(gallery.name), *counts, cell(gallery.model_name), moment_text(gallery.create_time))
    print_table(table)


def _print_gallery(gallery: Gallery) -> None:
    rows = {
        "gallery": gallery.name,
        "people": gallery.identity_count,
        "templates": gallery.template_count,
        "model": f"{gallery.model_name} ({gallery.model_digest[:12]}…)",
        "created (UTC)": moment_text(gallery.create_time),
        "revision": gallery.revision,
        "kept": days_text(gallery.retention),
        "aligned crops": "kept" if gallery.keep_crops else "not kept",
        **_rules(gallery.decision_policy, gallery.enrolment_policy),
    }
    print_table(details(rows))


def _threshold(decision: DecisionPolicy) -> str:
    if decision.target_fpir is not None:
        return f"what keeps FPIR {decision.target_fpir:g}"
    return "the model's" if decision.cosine is None else f"{decision.cosine:g}"


def _rules(decision: DecisionPolicy, enrolment: EnrolmentPolicy) -> dict[str, object]:
    limits = {name.replace("_", " "): getattr(enrolment.quality_limits, name) for name in LIMITS}
    return {
        "threshold": _threshold(decision),
        "review from": "no review band" if decision.review_cosine is None else f"{decision.review_cosine:g}",
        "runner-up margin": f"{decision.runner_up_margin:g}",
        "several faces": enrolment.several_faces or "the server's rule",
        "duplicates": enrolment.duplicate_action or "the server's rule",
        "mislabelled": enrolment.mislabel_action or "the server's rule",
        **{name: f"{limit:g}" for name, limit in limits.items() if limit is not None},
    }
