"""The commands about money: prices, ledger, reconcile. They read what runs left behind; none of them loads torch."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from robustlab.cli.options import JsonFlag, Prices, RunArgument, Runs, Shadow, read_card, warn_of_stale_card
from robustlab.cli.printing import print_rows

if TYPE_CHECKING:
    from robustlab.engine.doctor import Finding

prices_app = typer.Typer(help="What an hour or a token costs, as of when, says who.", no_args_is_help=True)
ledger_app = typer.Typer(help="What a run was billed: verify it, export it, price it again.", no_args_is_help=True)
Reference = Annotated[str | None, typer.Option("--reference", help="A published claim, such as kimi_k25_audit.")]
Out = Annotated[Path, typer.Option("--out", help="The CSV file to make; it must not exist.")]


@prices_app.command("list")
def list_prices(prices: Prices = None, as_json: JsonFlag = False) -> None:
    """List every price of the card, with its source and age."""
    from robustlab.engine import prices as engine

    card = read_card(prices)
    found = engine.list_prices(card, date.today())
    rows = [asdict(row) if as_json else row.to_columns() for row in found]
    warn_of_stale_card(card)
    print_rows(f"{card.path}, as of {card.prices.as_of}, sha256 {card.sha256[:12]}", rows, as_json)


@prices_app.command("check")
def check_prices(prices: Prices = None, as_json: JsonFlag = False) -> None:
    """Check a price card: valid, of today, and known to the list of devices; exit 1 when something is not."""
    from robustlab.engine import prices as engine

    _print_findings("price card", engine.check_prices(prices, date.today()), as_json)


@ledger_app.command()
def verify(run_id: RunArgument, runs: Runs = Path("runs"), as_json: JsonFlag = False) -> None:
    """Prove the chain, the sums and the explained share of wall time; exit 1 when something does not hold."""
    from robustlab.engine.ledger import verify_ledger

    _print_findings(f"ledger of run {run_id}", verify_ledger(runs, run_id).findings, as_json)


@ledger_app.command()
def export(run_id: RunArgument, out: Out, runs: Runs = Path("runs")) -> None:
    """Write a run's charges as CSV with FOCUS column names."""
    from robustlab.engine.ledger import describe_torn_tail, export_focus

    _warn(describe_torn_tail(runs, run_id))
    print(f"{export_focus(runs, run_id, out)} charges written to {out}")


@ledger_app.command()
def price(
    run_id: RunArgument,
    runs: Runs = Path("runs"),
    prices: Prices = None,
    shadow_price: Shadow = None,
    as_json: JsonFlag = False,
) -> None:
    """Price a run again by another card or item, without running it again."""
    from robustlab.engine.ledger import describe_torn_tail, price_again
    from robustlab.units import format_seconds, format_usd, to_seconds

    card = read_card(prices)
    warn_of_stale_card(card)
    _warn(describe_torn_tail(runs, run_id))
    found = price_again(runs, run_id, card, hardware=shadow_price)
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return
    rows: list[dict[str, object]] = [
        {
            "budget": row.purse or "all",
            "node": row.node or "all",
            "account": row.account or "both",
            "device time": format_seconds(to_seconds(row.device_ns)),
            "billed": format_usd(row.old_micro_usd),
            "by this card": format_usd(row.new_micro_usd),
        }
        for row in found
    ]
    print_rows(f"run {run_id}", rows, as_json)


def reconcile(
    run_id: RunArgument,
    reference: Reference = None,
    runs: Runs = Path("runs"),
    prices: Prices = None,
    as_json: JsonFlag = False,
) -> None:
    """Set a run's cost beside a published claim: by the hour, by the token and by the operation."""
    from robustlab.engine.cards import find_card_of
    from robustlab.engine.reconcile import reconcile_run
    from robustlab.engine.reconciliation import describe, to_dict
    from robustlab.report.tables import print_table
    from robustlab.report.wording import plain_text

    card = None if prices is None else read_card(prices)
    found = reconcile_run(runs, run_id, reference=reference, card=card)
    warn_of_stale_card(card or find_card_of(runs, run_id))
    if as_json:
        print(json.dumps(to_dict(found), indent=2))
        return
    for section in describe(found):
        if section.rows:
            print_table(Console(), section.title, section.columns, section.rows)
        else:
            print(plain_text(section.title))
        for line in section.lines:
            print(f"  {plain_text(line)}")
        print()


def _warn(message: str | None) -> None:
    if message is not None:
        sys.stderr.write(f"{message}\n")


def _print_findings(title: str, findings: "Sequence[Finding]", as_json: bool) -> None:
    print_rows(title, [asdict(finding) for finding in findings], as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
