"""``rag keys``: who may use the API, for what, and how much."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.errors import ConfigurationError
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.keys import SCOPES, ApiKey, KeyLimits, KeyUse, Scope, utc_day

app = typer.Typer(no_args_is_help=True, help="API keys: who may use the API, for what, and how much.")

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S = 100 * 366 * 86_400


@app.command("create")
@console.handles_errors
def create(
    tenant: Annotated[str, typer.Option(help="Tenant whose documents the key reads.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="Group that the reader belongs to; may be repeated. Everybody is in public."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the key is for; default: the tenant.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="query, ingest, admin or eval; may be repeated. Default: query.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Life of the key, such as 30d, 12h or 8w; default: no end.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    daily_tokens: Annotated[int | None, typer.Option(min=1, help="Billed tokens a day (UTC).")] = None,
    daily_usd: Annotated[float | None, typer.Option(help="Dollars a day (UTC).")] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Make a key and print its secret, this once."""
    groups = [_word(g, "--group") for g in group or ()]
    scopes = [_scope(s) for s in scope or ("query",)]
    tenant = _word(tenant, "--tenant")
    life_s = None if expires is None else _duration(expires, "--expires")
    if life_s == 0:
        raise typer.BadParameter("a key must live longer than no time", param_hint="--expires")
    if daily_usd is not None and not 0 < daily_usd < float("inf"):
        raise typer.BadParameter("must be above 0", param_hint="--daily-usd")
    with _ledger() as ledger:
        key, secret = ledger.keys.create(
            name=name.strip() or tenant,
            tenant=tenant,
            groups=groups,
            scopes=scopes,
            limits=KeyLimits(requests_per_minute, daily_tokens, daily_usd),
            expires_at=None if life_s is None else time.time() + life_s,
        )
    _show_secret(key, secret, json)


@app.command("list")
@console.handles_errors
def list_keys(json: Annotated[bool, console.JSON_OPTION] = False) -> None:
    """List keys with what they used today (UTC); secrets are not stored and cannot be shown."""
    now = time.time()
    day = utc_day(now)
    with _ledger() as ledger:
        keys, usage = ledger.keys.all(), ledger.keys.usage(day)
    rows = [_row(k, now) | {"used_today": _used(usage.get(k.key_id) or KeyUse(k.key_id, day, 0, 0, 0.0))} for k in keys]
    if json:
        console.emit(rows)
        return
    if not rows:
        console.out.print("no API keys; make one with `rag keys create --tenant TENANT --group GROUP`")
        return
    console.show_table(
        f"{len(rows)} API keys",
        ("id", "name", "reads", "may", "state", "last used", "used today"),
        (
            (
                r["key_id"][:8],
                r["name"],
                f"{r['tenant']}: {', '.join(r['groups']) or 'public'}",
                " ".join(r["scopes"]),
                r["state"] if r["state"] != "active" else _until(r["expires_at"]),
                console.when(r["last_used_at"]),
                _share(r),
            )
            for r in rows
        ),
    )


@app.command("revoke")
@console.handles_errors
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="Its id, or the beginning of it.")],
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Revoke a key for good. Running servers refuse it within five seconds."""
    with _ledger() as ledger:
        found = _find(ledger, key)
        revoked = ledger.keys.revoke(found.key_id)
        if json:
            console.emit(_row(_find(ledger, found.key_id), time.time()))
        elif revoked:
            console.out.print(f"revoked {found.key_id} ({console.escape(found.name)})")
        else:
            console.out.print(f"{found.key_id} was revoked at {console.when(found.revoked_at)}")


@app.command("rotate")
@console.handles_errors
def rotate(
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="Its id, or the beginning of it.")],
    grace: Annotated[
        str, typer.Option(help="How long the old key goes on working, such as 24h; 0 ends it now.")
    ] = "24h",
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Make a successor with the same rights and limits, and let the old key end."""
    grace_s = _duration(grace, "--grace")
    with _ledger() as ledger:
        found = _find(ledger, key)
        made = ledger.keys.rotate(found.key_id, grace_s=grace_s)
        if made is None:
            state = found.state(time.time())
            raise ConfigurationError(f"{found.key_id} is {state} and cannot be rotated; run `rag keys create` instead")
        old = _find(ledger, found.key_id)
    _show_secret(*made, json, replaces=old)


@contextmanager
def _ledger() -> Iterator[Ledger]:
    ledger = open_ledger(console.load_settings())
    try:
        yield ledger
    finally:
        ledger.close()


def _find(ledger: Ledger, prefix: str) -> ApiKey:
    # The secret itself may be pasted here: it must not come back in the message.
    parts = prefix.split("_")
    key = ledger.keys.get(parts[1] if prefix.startswith("rag_") and len(parts) > 1 else prefix)
    if key is None:
        raise ConfigurationError("no single API key has this id; see `rag keys list`")
    return key


def _show_secret(key: ApiKey, secret: str, json: bool, replaces: ApiKey | None = None) -> None:
    if json:
        row = _row(key, time.time()) | {"secret": secret}
        if replaces is not None:
            row["replaces"] = {"key_id": replaces.key_id, "expires_at": replaces.expires_at}
        console.emit(row)
        return
    out = console.out
    out.print(f"[bold]key[/bold]      {key.key_id} ({console.escape(key.name)})")
    out.print(
        f"[bold]reads[/bold]    {console.escape(key.tenant)}: {console.escape(', '.join(key.groups) or 'public')}"
    )
    out.print(f"[bold]scopes[/bold]   {', '.join(key.scopes)}")
    out.print(f"[bold]ends[/bold]     {'never' if key.expires_at is None else console.when(key.expires_at)}")
    if replaces is not None:
        out.print(f"[bold]replaces[/bold] {replaces.key_id}, which ends {console.when(replaces.expires_at)}")
    out.print(f"[bold]secret[/bold]   {secret}", soft_wrap=True)
    console.err.print("Keep the secret now: it is not stored and cannot be shown again. Try it:")
    console.err.print(
        f"""curl http://127.0.0.1:8000/v1/query -H "Authorization: Bearer {secret}" """
        """-H "Content-Type: application/json" -d '{"question": "What is this about?"}'""",
        soft_wrap=True,
        markup=False,
    )


def _row(key: ApiKey, now: float) -> dict[str, Any]:
    """Return what may be shown of a key."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "tenant": key.tenant,
        "groups": list(key.groups),
        "scopes": list(key.scopes),
        "state": key.state(now),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "requests_per_minute": key.limits.requests_per_minute,
        "daily_tokens": key.limits.daily_tokens,
        "daily_usd": key.limits.daily_usd,
    }


def _used(use: KeyUse) -> dict[str, Any]:
    return {"requests": use.requests, "tokens": use.tokens, "usd": round(use.usd, 6)}


def _until(expires_at: float | None) -> str:
    return "active" if expires_at is None else f"active until {console.when(expires_at)}"


def _share(row: dict[str, Any]) -> str:
    used = row["used_today"]
    tokens = f"{used['tokens']}" + (f"/{row['daily_tokens']}" if row["daily_tokens"] else "")
    usd = f"${used['usd']:g}" + (f"/{row['daily_usd']:g}" if row["daily_usd"] is not None else "")
    return f"{used['requests']} requests {tokens} tokens {usd}"


def _scope(text: str) -> Scope:
    if text not in SCOPES:
        raise typer.BadParameter(f"is one of {', '.join(SCOPES)}", param_hint="--scope")
    return text


def _word(text: str, option: str) -> str:
    if not text.strip():
        raise typer.BadParameter("must not be empty", param_hint=option)
    return text.strip()


def _duration(text: str, option: str) -> float:
    found = re.fullmatch(r"(\d{1,9})\s*([smhdw])|0", text.strip().lower())
    if found is None:
        raise typer.BadParameter("write a number and s, m, h, d or w, such as 30d", param_hint=option)
    seconds = 0 if found[1] is None else int(found[1]) * _UNIT_S[found[2]]
    if seconds > _LONGEST_S:
        raise typer.BadParameter("a hundred years are the most", param_hint=option)
    return float(seconds)
