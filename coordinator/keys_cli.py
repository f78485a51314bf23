"""`enpire-coord keys`: make the lab's keys, look at them, replace and drop them, sign anew what grows old."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coordinator.errors import CoordinatorError

keys_app = typer.Typer(
    no_args_is_help=True,
    help="Make, show, replace and drop the keys that stations trust.",
    rich_markup_mode=None,
)
REFUSED = 2
PASSPHRASE = "ENPIRE_KEY_PASSPHRASE"
SPANS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
Run = Annotated[Path, typer.Argument(help="the folder of a run")]
Keys = Annotated[Path | None, typer.Option("--keys", help="the folder of keys; in the folder of the run without it")]
Signers = Annotated[
    list[str],
    typer.Option("--signer", help="a person's key: a PEM file, or a URI as hsm:... or awskms:...; as often as needed"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be signed anew")]
AsJson = Annotated[bool, typer.Option("--json", help="print it as one JSON object")]


@keys_app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="the folder of the keys, made now")],
    humans: Annotated[int, typer.Option(min=0, help="keys in files, one a person")] = 2,
    threshold: Annotated[int, typer.Option(min=1, help="how many people it takes to release a bundle")] = 2,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="put people's keys under a passphrase")] = False,
    hardware: Annotated[
        list[Path] | None, typer.Option(help="the public PEM file of a key in hardware, one a person")
    ] = None,
) -> None:
    """Make an online key for the coordinator and keys for people.

    The first start of a run with these keys needs people's keys too; afterwards take their files elsewhere.

    Examples:

      enpire-coord keys make lab-keys --humans 3 --threshold 2 --passphrase

      enpire-coord keys make lab-keys --humans 1 --hardware token.pub.pem
    """
    from coordinator.publish.ceremony import make_keys

    with _refusals():
        secret = _ask("the new keys", confirm=True) if passphrase else None
        made = make_keys(folder, humans, threshold, secret, {path.name.split(".")[0]: path for path in hardware or []})
    for name, keyid in made.items():
        print(f"{name}  {keyid}")
    print(f"private keys are in {folder}; give each person theirs and keep no copy", file=sys.stderr)


@keys_app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="the folder of a run, or of keys")],
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Print who signs what, how many must, and until when it holds.

    Examples:

      enpire-coord keys show runs/2026-11-01-120000-seed1

      enpire-coord keys show lab-keys --json
    """
    from coordinator.publish.ceremony import look

    with _refusals():
        told = look(folder, keys or folder / "keys", time.time())
    if as_json:
        print(json.dumps(told))
        return
    print(*(f"{name}  {keyid}" for name, keyid in told["people"].items()), sep="\n")
    if told["roles"]:
        Console().print(_table(told["roles"]))
    for role, paths in told["waiting"].items():
        print(f"{role} waits for signatures or the coordinator: {', '.join(paths)}")


@keys_app.command()
def rotate(
    run: Run,
    role: Annotated[str, typer.Option(help="whose key: online, or a person as `keys show` names them")] = "online",
    signer: Signers = [],  # noqa: B006
    public: Annotated[Path | None, typer.Option(help="the public PEM of the person's new key, made elsewhere")] = None,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="put the new key under a passphrase")] = False,
    keys: Keys = None,
    dry_run: DryRun = False,
) -> None:
    """Replace a key. A new root tells stations, and what the old key signed is signed anew.

    Examples:

      enpire-coord keys rotate runs/seed1 --role online --signer ann.pem --signer bob.pem

      enpire-coord keys rotate runs/seed1 --role human-1 --public ann.pub.pem --signer bob.pem --signer cleo.pem
    """
    with _ceremony(run, keys, signer, dry_run) as ceremony:
        if role == "online":
            plan = ceremony.rotate_online()
        else:
            plan = ceremony.rotate_person(role, public, _ask("the new key", confirm=True) if passphrase else None)
    _tell(plan, dry_run)


@keys_app.command()
def revoke(
    run: Run,
    keyid: Annotated[str, typer.Argument(help="the key, or how it begins, as `keys show --json` prints it")],
    signer: Signers = [],  # noqa: B006
    keys: Keys = None,
    dry_run: DryRun = False,
) -> None:
    """Drop a person's key from every role, and sign anew all that it could sign.

    Example: enpire-coord keys revoke runs/seed1 3f9a0c --signer ann.pem --signer bob.pem
    """
    with _ceremony(run, keys, signer, dry_run) as ceremony:
        plan = ceremony.drop(keyid)
    _tell(plan, dry_run)


@keys_app.command()
def renew(
    run: Run,
    signer: Signers = [],  # noqa: B006
    everything: Annotated[bool, typer.Option("--all", help="also what is not past half of its life")] = False,
    keys: Keys = None,
    dry_run: DryRun = False,
) -> None:
    """Sign anew what people sign, before it expires: the list of revoked bundles each week, releases each month.

    Example: enpire-coord keys renew runs/seed1 --signer ann.pem --signer bob.pem
    """
    with _ceremony(run, keys, signer, dry_run) as ceremony:
        plan = ceremony.renew(everything)
    _tell(plan, dry_run)


@keys_app.command()
def carry(
    run: Run,
    into: Annotated[Path, typer.Argument(help="the folder to write, best new, as on a USB stick")],
    keys: Keys = None,
) -> None:
    """Copy all that stations trust to a folder, where it holds for a week; enpire-edge import-bundle takes it in.

    Example: enpire-coord keys carry runs/2026-11-01-120000-seed1 /media/stick/trust
    """
    from coordinator.publish.publisher import Lab

    with _refusals():
        lab = Lab.of(run, keys, _ask)
        size = lab.repository.carry(into, lab.ring)
    print(f"{into} holds {_size(size)}, good for a week")


@contextmanager
def _ceremony(run: Path, keys: Path | None, signers: list[str], dry_run: bool) -> Iterator[Any]:
    from coordinator.publish.ceremony import Ceremony
    from coordinator.publish.publisher import FOLDER, KEYS

    with _refusals():
        yield Ceremony.of(run / FOLDER, keys or run / KEYS, signers, _ask, dry_run)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None
    except OSError as error:
        print(f"enpire-coord: cannot use {error.filename}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None


def _ask(name: str, confirm: bool = False) -> str:
    """Return the passphrase of a key, from the environment where it is set there."""
    if secret := os.environ.get(PASSPHRASE):
        return secret
    answer: str = typer.prompt(f"passphrase of {name}", hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def _tell(plan: dict[str, tuple[int, int]], dry_run: bool) -> None:
    would = "would be" if dry_run else "is"
    for role, (before, after) in plan.items():
        print(f"{role} {would} version {after} instead of {before}")
    if not plan:
        print("nothing is to be signed anew")


def _table(roles: list[dict[str, Any]]) -> Table:
    table = Table("role", "signed by", "needed", "version", "good for", box=None, pad_edge=False)
    for role in roles:
        good = _span(role["left_s"]) if role["left_s"] > 0 else "expired"
        table.add_row(role["role"], ", ".join(role["keys"]), str(role["threshold"]), str(role["version"]), good)
    return table


def _span(seconds: float) -> str:
    """Return a span in the largest unit of which there are two."""
    unit, length_s = next((item for item in SPANS if seconds >= 2 * item[1]), SPANS[-1])
    return f"{seconds / length_s:.1f} {unit}"


def _size(count: int) -> str:
    """Return a number of bytes in the largest unit of which there is one."""
    unit, length = next((item for item in SIZES if count >= item[1]), SIZES[-1])
    return f"{count / length:.1f} {unit}" if length > 1 else f"{count} B"
