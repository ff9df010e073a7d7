"""`facedex-index keys`: who may call the servers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from facedex.indexer.api_key import KeyTerms, Role
from facedex.indexer.cli_session import HasGalleries, good_order, opened_anew, opened_store, say
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.galleries import GALLERY_NAME
from facedex.indexer.texts import checked_text

if TYPE_CHECKING:
    from datetime import datetime

    from facedex.indexer.api_key import ApiKey

app = typer.Typer(help="API keys: who may call the servers, for what, in which galleries.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
MOST_DAYS = 36_500
SHOWN_ONCE = "This is the only time that the key is shown. Servers ask for a key from now on, within a second."


@app.command()
def create(  # noqa: PLR0913  (a command has as many options as it has)
    context: typer.Context,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="What the key is for, for instance front-door.")],
    *,
    role: Annotated[list[Role], typer.Option(help="What it may do; give it several times for several roles.")],
    gallery: Annotated[
        list[str] | None, typer.Option(help="Only in this gallery, or these; all of them where none is named.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=MOST_DAYS, help="How long it is good; for ever where not given.")
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Most calls and messages of streams a second, for each server.")
    ] = None,
    calls_per_day: Annotated[
        int | None, typer.Option(min=1, help="Most calls and messages of streams a day (UTC), over all servers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes a key and prints it, once. From the first key on, servers answer nobody without one."""
    place: HasGalleries = context.obj
    with good_order(), opened_anew(place) as store:
        terms = KeyTerms(
            label=_checked_label(label),
            roles=frozenset(role),
            galleries=_checked_galleries(gallery),
            calls_per_second=calls_per_second,
            calls_per_day=calls_per_day,
            expires_at=None if days is None else store.now() + timedelta(days=days),
        )
        issued = store.api_keys.create(terms)
    if as_json:
        print(json.dumps(_document(issued.key, 0) | {"key": str(issued.text)}, indent=2))
        return
    say(SHOWN_ONCE)
    print(issued.text)


@app.command("list")
def list_keys(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Lists keys by their ids, the newest first, with those that are revoked."""
    with good_order(), opened_store(context.obj) as store:
        keys, calls, now = store.api_keys.all(), store.api_keys.calls_today(), store.now()
    if as_json:
        print(json.dumps([_document(each, calls.get(each.key_id, 0)) for each in keys], indent=2))
        return
    label = Column("for", overflow="fold")
    limits = Column("limits", overflow="fold")
    table = Table(Column("key", min_width=16), label, "roles", "galleries", limits, "state", title="API keys")
    for each in keys:
        table.add_row(each.key_id, Text(each.terms.label), *_row(each, calls.get(each.key_id, 0)), _state(each, now))
    Console().print(table)


@app.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, 16 digits, as keys list shows it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Revokes a key: within a second, no server answers it any more. There is no way back; make a new key."""
    with good_order(), opened_store(context.obj) as store:
        revoked = store.api_keys.revoke(key_id)
    if as_json:
        print(json.dumps(_document(revoked, 0), indent=2))
        return
    print(f"revoked {revoked.key_id} ({revoked.terms.label})")


def _checked_label(label: str) -> str:
    if not label.strip():
        raise InvalidArgument("label", "says what the key is for, so that it can be found again")
    return checked_text(label, "label")


def _checked_galleries(names: list[str] | None) -> frozenset[str] | None:
    for name in names or ():
        if not GALLERY_NAME.fullmatch(name):
            raise InvalidArgument("gallery", f"{name!r} can be no gallery's name")
    return frozenset(names) if names else None


# Showing


def _document(key: ApiKey, calls: int) -> dict[str, object]:
    terms = key.terms
    return {
        "id": key.key_id,
        "label": terms.label,
        "roles": sorted(each.value for each in terms.roles),
        "galleries": None if terms.galleries is None else sorted(terms.galleries),
        "calls_per_second": terms.calls_per_second,
        "calls_per_day": terms.calls_per_day,
        "calls_today": calls,
        "created": key.created_at.isoformat(),
        "expires": None if terms.expires_at is None else terms.expires_at.isoformat(),
        "revoked": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }


def _row(key: ApiKey, calls: int) -> tuple[str, ...]:
    terms = key.terms
    roles = ", ".join(sorted(each.value for each in terms.roles))
    return roles, "all" if terms.galleries is None else ", ".join(sorted(terms.galleries)), _limits(terms, calls)


def _limits(terms: KeyTerms, calls: int) -> str:
    rate = "" if terms.calls_per_second is None else f"{terms.calls_per_second:g}/s"
    quota = "" if terms.calls_per_day is None else f"{calls} of {terms.calls_per_day} today"
    return ", ".join(each for each in (rate, quota) if each)


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.is_expired(now):
        return "expired"
    return "good" if key.terms.expires_at is None else f"good until {key.terms.expires_at:%Y-%m-%d}"
