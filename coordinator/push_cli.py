"""`enpire-coord push-policy`: bring a policy into force on stations, and see each come or go back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from coordinator.errors import CoordinatorError

if TYPE_CHECKING:
    from coordinator.publish.push import Pushed, Pusher

FAILED, REFUSED, UNFINISHED, INTERRUPTED = 1, 2, 3, 130
PASSPHRASE = "ENPIRE_KEY_PASSPHRASE"


def push_policy(
    what: Annotated[
        str | None,
        typer.Argument(help="a policy's folder, how the sha256 of a bundle of the run begins, or: incumbent"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="the folder of a run; the newest in runs/ without it")] = None,
    edges: Annotated[str, typer.Option(help="stations, by commas; all of the run without it")] = "",
    stage: Annotated[str, typer.Option(help="how far it may go: shadow, canary or active")] = "active",
    signer: Annotated[
        list[str], typer.Option(help="a person's key: a PEM file, or a URI as hsm:...; as often as needed")
    ] = [],  # noqa: B006
    keys: Annotated[Path | None, typer.Option(help="the folder of keys; in the folder of the run without it")] = None,
    why: Annotated[str, typer.Option(help="what is expected of it, kept in the bundle")] = "pushed by hand",
    seed: Annotated[int, typer.Option(min=0, help="draws the starts of canary and probation")] = 1,
    hours: Annotated[float, typer.Option(min=0.01, help="after which the order allows nothing more")] = 12.0,
    rollback: Annotated[bool, typer.Option("--rollback", help="go back to what was good before, now")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="forbid the bundle for good, everywhere")] = False,
    when: Annotated[str, typer.Option(help="of a revocation: next-trial, or now")] = "next-trial",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="drop what waits for signatures of the bundle")] = False,
    countersign: Annotated[bool, typer.Option("--countersign", help="sign what waits for a signature")] = False,
    override: Annotated[
        bool, typer.Option("--override", help="let it become active without a canary; two people must sign")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="show each station until all have ended")] = True,
    timeout_s: Annotated[float, typer.Option(help="of the watching; 0 is for ever")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be ordered")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Release a policy, order stations to bring it into force, and show each on its way.

    Each station tests it in its sandbox, beside the active one, in pairs against it and alone, and goes back by itself
    where a gate fails. Exit code 0: all have come as far as --stage; 1: one went back, or a signature is missing; 2:
    refused; 3: not at its end after --timeout-s; 130: Ctrl-C. What was ordered stands, and the stations go on.

    Examples:

      enpire-coord push-policy policies/push_t --edges station-1,station-2 --stage canary

      enpire-coord push-policy incumbent --signer ann.pem --signer bob.pem

      enpire-coord push-policy --rollback

      enpire-coord push-policy 3b6a90 --revoke --when now --signer ann.pem

      enpire-coord push-policy 3b6a90 --withdraw
    """
    from coordinator.publish.push import Pusher, PushRefused
    from coordinator.replay import newest_run

    with _refusals():
        folder = run or newest_run(Path("runs"))
        pusher = Pusher(folder, keys, signer, _ask)
        if withdraw:
            _withdraw(pusher, what, why, dry_run, as_json)
            return
        chosen = pusher.edges([item.strip() for item in edges.split(",") if item.strip()])
        if what is None and not rollback:
            raise PushRefused("name a policy: its folder, how its bundle's name begins, or `incumbent`; see --help")
        if countersign or override:
            if dry_run:
                raise PushRefused("--dry-run signs nothing, and --countersign and --override do nothing else")
            _tell_signed(pusher, pusher.named(what or "", why), override, as_json)
            return
        done = _order(pusher, what, why, chosen, stage, seed, hours, rollback, revoke, when, dry_run)
    if dry_run or done.missing or not watch or done.what != "push":
        _tell(folder, done, dry_run, as_json)
        raise typer.Exit(FAILED if done.missing and not dry_run else 0)
    raise typer.Exit(_follow(folder, done, timeout_s, as_json))


def _order(
    pusher: Pusher, what: str | None, why: str, edges: tuple[str, ...], stage: str, seed: int, hours: float,
    rollback: bool, revoke: bool, when: str, dry_run: bool,
) -> Pushed:  # fmt: skip
    if rollback:
        _check_can_go_back(pusher, edges)
        return pusher.rollback(edges, pusher.task_of(edges), dry_run)
    policy = pusher.find(what or "", why)
    if not dry_run:
        _tell_whose(pusher)
    if revoke:
        return pusher.revoke(policy.bundle, when, edges, dry_run)
    return pusher.push(policy, edges, stage, seed, hours, dry_run)


def _check_can_go_back(pusher: Pusher, edges: tuple[str, ...]) -> None:
    """Name the stations that have nothing to go back to.

    Raises:
        PushRefused: none has anything.
    """
    from coordinator.publish.push import PushRefused

    without = pusher.with_nothing_good(edges)
    if len(without) == len(edges):
        raise PushRefused(f"nothing good to go back to on {', '.join(edges)}; nothing is ordered")
    if without:
        print(f"enpire-coord: nothing good to go back to on {', '.join(without)}", file=sys.stderr)


def _withdraw(pusher: Pusher, what: str | None, why: str, dry_run: bool, as_json: bool) -> None:
    from coordinator.publish.push import PushRefused

    if what is None or dry_run:
        raise PushRefused("--withdraw wants a bundle that waits for signatures, and has no --dry-run; see keys show")
    bundle = pusher.named(what, why)
    role = pusher.withdraw(bundle)
    print(json.dumps({"bundle": bundle, "role": role}) if as_json else f"{bundle[:12]} {role}: withdrawn")


def _tell_whose(pusher: Pusher) -> None:
    """Say with whose keys is signed where nobody has named them."""
    if pusher.named_by_nobody:
        print(f"enpire-coord: no --signer, so signed by {pusher.named_by_nobody}", file=sys.stderr)


def _follow(run: Path, done: Pushed, timeout_s: float, as_json: bool) -> int:
    from coordinator.push_watch import follow, said

    try:
        states = follow(run, done, timeout_s, Console(stderr=True))
    except KeyboardInterrupt:
        print("enpire-coord: no longer watching; the stations go on", file=sys.stderr)
        return INTERRUPTED
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        return REFUSED
    if as_json:
        print(json.dumps({**asdict(done), "states": {edge: asdict(item) for edge, item in states.items()}}))
    else:
        for edge, item in states.items():
            print(f"{edge}  {item.state}  {said(item)}")
    late = [edge for edge, item in states.items() if not item.ended]
    if late:
        why = f"the order stands; see that the coordinator of {run} runs, and that they do"
        print(f"enpire-coord: not at its end after {timeout_s:g} s on {', '.join(late)}: {why}", file=sys.stderr)
        return UNFINISHED
    return 0 if all(item.good for item in states.values()) else FAILED


def _tell(run: Path, done: Pushed, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(done)))
        return
    would = "would be" if dry_run else "are"
    edges, bundle = ", ".join(done.edges), done.bundle[:12]
    if done.missing and not dry_run:
        print(f"{bundle} is not ordered yet: {done.missing} more signature{'s' * (done.missing != 1)} needed")
        print(
            f"add --signer, or let the next person run enpire-coord push-policy {bundle} --run {run} --countersign"
            " --signer KEY, and then push again",
            file=sys.stderr,
        )
        return
    print(
        {
            "push": f"{edges} {would} ordered to bring {bundle} for {done.task} into force, up to {done.stage}",
            "rollback": f"{edges} {would} ordered to go back to what was good before",
            "revoke": f"{edges} {would} told that {bundle} is forbidden for good, by {done.stage}",
        }[done.what]
    )
    if done.missing:
        print(f"{done.missing} more signatures would be needed", file=sys.stderr)


def _tell_signed(pusher: Pusher, bundle: str, override: bool, as_json: bool) -> None:
    _tell_whose(pusher)
    signed = pusher.override(bundle) if override else pusher.countersign(bundle)
    if as_json:
        print(json.dumps(asdict(signed)))
        return
    state = f"{signed.missing} more needed" if signed.missing else "complete"
    print(f"{bundle[:12]} {signed.role}: signed, {state}")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None


def _ask(name: str) -> str:
    given: Any = os.environ.get(PASSPHRASE)
    return str(given) if given is not None else str(typer.prompt(f"passphrase of {name}", hide_input=True, err=True))
