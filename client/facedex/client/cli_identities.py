"""`facedex identities`: listing, showing, changing and erasing people."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from facedex.client.cli_erasures import ReceiptFile, check_receipt_file, keep_receipt
from facedex.client.cli_output import (
    cell,
    counted,
    details,
    moment_text,
    new_table,
    print_json,
    print_line,
    print_table,
)
from facedex.client.cli_session import (
    Filters,
    GalleryName,
    IdentityId,
    Json,
    Yes,
    confirm_erasing,
    connected,
    filters_of,
    pairs,
)
from facedex.client.galleries import UNCHANGED, Unchanged
from facedex.client.identities import Identity, Template

identities = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="People enrolled in a gallery.")


@identities.command("list")
def list_(context: typer.Context, gallery: GalleryName, *, filters: Filters = None, json: Json = False) -> None:
    """List the people of a gallery in order of their ids."""
    with connected(context) as client:
        found = client.list_identities(gallery, filters=filters_of(filters))
        if json:
            for identity in found:
                print_json(identity)
        else:
            _print_list(found)


@identities.command()
def show(context: typer.Context, gallery: GalleryName, identity: IdentityId, *, json: Json = False) -> None:
    """Show a person with the templates."""
    show = print_json if json else _print_identity
    with connected(context) as client:
        show(client.get_identity(gallery, identity))


@identities.command()
def update(  # noqa: PLR0913 - one parameter for each option
    context: typer.Context,
    gallery: GalleryName,
    identity: IdentityId,
    *,
    name: Annotated[str | None, typer.Option(help="Name shown to people.", show_default=False)] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="All attributes anew, not only these.", show_default=False),
    ] = None,
    consent: Annotated[str | None, typer.Option(help="Where the consent is recorded.", show_default=False)] = None,
    purpose: Annotated[str | None, typer.Option(help="What the person is enrolled for.", show_default=False)] = None,
    hold: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Legal hold: nobody may erase the person.", show_default=False),
    ] = None,
    clear_hold: Annotated[bool, typer.Option("--clear-hold", help="The legal hold is over.")] = False,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="When to erase the person: 2030-12-31, or never.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Change what is known of a person; the templates stay."""
    show = print_json if json else _print_identity
    expire_time = _expire_time(expires)
    with connected(context) as client:
        changed = client.update_identity(
            gallery,
            identity,
            display_name=UNCHANGED if name is None else name,
            attributes=dict(pairs(attribute, option="--attribute")) if attribute else UNCHANGED,
            consent_reference=UNCHANGED if consent is None else consent,
            purpose=UNCHANGED if purpose is None else purpose,
            hold_reason="" if clear_hold else _given(hold),
            expire_time=expire_time,
        )
    show(changed)


@identities.command()
def delete(
    context: typer.Context,
    gallery: GalleryName,
    identity: IdentityId,
    *,
    yes: Yes = False,
    receipt: ReceiptFile = None,
    json: Json = False,
) -> None:
    """Erase a person with all templates, for ever."""
    with connected(context) as client:
        count = len(client.get_identity(gallery, identity).templates)
        if not yes:
            confirm_erasing(f"{identity} with {counted(count, 'template', 'templates')}")
        check_receipt_file(receipt)
        erased = client.delete_identity(gallery, identity)
    if json:
        print_json(erased, identity=identity)
    else:
        print_line(f"erased {identity} with {counted(erased.template_count, 'template', 'templates')}")
    keep_receipt(erased.receipt, receipt)


@identities.command("delete-template")
def delete_template(
    context: typer.Context,
    gallery: GalleryName,
    template: Annotated[int, typer.Argument(help="Number of the template, as `show` tells it.")],
    *,
    yes: Yes = False,
    receipt: ReceiptFile = None,
    json: Json = False,
) -> None:
    """Erase one template, for ever; the person stays."""
    if not yes:
        confirm_erasing(f"template {template}")
    with connected(context) as client:
        check_receipt_file(receipt)
        erased = client.delete_template(gallery, template)
    if json:
        print_json(erased, template=template)
    else:
        print_line(f"erased template {template}")
    keep_receipt(erased.receipt, receipt)


@identities.command()
def export(
    context: typer.Context,
    gallery: GalleryName,
    identity: IdentityId,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.zip", help="The ZIP file to write.")],
    vectors: Annotated[bool, typer.Option("--vectors", help="With the vectors: they can identify the person.")] = False,
) -> None:
    """Write everything that is held about a person into a ZIP file, for them."""
    with connected(context) as client:
        archive = client.export_identity(gallery, identity, include_vectors=vectors)
    output.touch(mode=0o600)
    output.write_bytes(archive)
    print_line(f"wrote {output}")


def _given(hold: str | None) -> str | Unchanged:
    if hold is None:
        return UNCHANGED
    if not hold:
        raise typer.BadParameter("a hold needs a reason; --clear-hold ends one", param_hint="--hold")
    return hold


def _expire_time(text: str | None) -> datetime | Unchanged | None:
    if text is None:
        return UNCHANGED
    if text == "never":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date such as 2030-12-31", param_hint="--expires") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print_list(found: Iterable[Identity]) -> None:
    table = new_table("identity", "name", "templates", "attributes", "enrolled (UTC)", right=["templates"])
    for identity in found:
        table.add_row(
            cell(identity.id),
            cell(identity.display_name),
            str(len(identity.templates)),
            cell(_attributes(identity)),
            moment_text(identity.create_time),
        )
    print_table(table)


def _print_identity(identity: Identity) -> None:
    rows = {
        "identity": identity.id,
        "name": identity.display_name,
        "attributes": _attributes(identity),
        "consent": identity.consent_reference,
        "purpose": identity.purpose,
        "enrolled (UTC)": moment_text(identity.create_time),
        "expires (UTC)": moment_text(identity.expire_time, absent="never"),
        **({"legal hold": identity.hold_reason} if identity.hold_reason else {}),
    }
    print_table(details(rows))
    _print_templates(identity.templates)


def _print_templates(templates: Iterable[Template]) -> None:
    numbers = ["template", "detector", "px", "sharp", "yaw°", "pitch°"]
    table = new_table(*numbers, "enrolled (UTC)", right=numbers)
    for template in templates:
        table.add_row(str(template.id), *_quality_texts(template), moment_text(template.create_time))
    print_table(table)


def _quality_texts(template: Template) -> tuple[str, ...]:
    quality = template.quality
    if quality is None:
        return ("", "", "", "", "")
    angles = f"{quality.yaw_degrees:+.0f}", f"{quality.pitch_degrees:+.0f}"
    return f"{quality.detector_score:.2f}", f"{quality.size_px:.0f}", f"{quality.sharpness:.0f}", *angles


def _attributes(identity: Identity) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(identity.attributes.items()))
