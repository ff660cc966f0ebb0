"""Texts of models and of strangers in everything that people open: pages, terminals, Markdown, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder
from robustlab.report.grid import build_grid
from robustlab.report.html import render_report
from robustlab.report.layout import to_markdown
from robustlab.report.tables import print_table
from robustlab.report.wording import plain_text
from tests.engine.test_ledger import CARD, make_run
from tests.hostile.conftest import Room
from tests.report.conftest import results
from tests.report.test_html import CLOSED, FREE_KEYS, TELLING

TEXTS = {
    "a script": "<script>alert(1)</script>",
    "an image": "<img src=x onerror=alert(1)>",
    "the end of a style": "</style></title><svg onload=alert(1)>",
    "an attribute": "\" onmouseover=alert(1) x=\"' autofocus onfocus='alert(1)",
    "an address": "javascript:alert(1)",
    "a template": "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}",
    "colours": "\x1b[31mred\x1b[0m\x1b[2J\x1b[1;1H",
    "a title of the terminal": "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07",
    "a link of the terminal": "\x1b]8;;http://example.org\x1b\\click\x1b]8;;\x1b\\",
    "control characters of one byte": "\x9b31m\x9d0;owned\x9c\x85\x90",
    "a line over another": "safe\rbroken\b\b\b",
    "turned round": "\u202egnp.exe\u2066\u2069\u200f",
    "invisible": "a\u200b\u200c\u2060\ufeff\U000e0041b",
    "markup of rich": "[bold red]x[/bold red][link=http://example.org]y[/link]",
    "Markdown": "| a | b |\n# head\n* item\n`code` **b** ~~s~~ [x](http://example.org) ![y](http://example.org/i.png)",
    "HTML in Markdown": "<details open><iframe src=//example.org></details>",
    "a formula": '=HYPERLINK("http://example.org","x")',
    "a formula with a plus": "+cmd|' /C calc'!A0",
    "a formula with an at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "a formula behind a tab": "\t=1+1",
    "unpaired": "\ud800\udfff",
    "a NUL": "a\0b",
    "a hundred marks": "a" + "\u0301" * 100,
}
STEERING = set("\x1b\x07\x08\x9b\x9d\x9c\x90\x85\r\0\u202e\u2066\u2069\u200f\u200b\u2060\ufeff\U000e0041")


def poison(value: Any, text: str, name: str = "") -> Any:
    """Append a text to every free text of a dumped document, and to some of its free keys."""
    if isinstance(value, dict):
        mine = {} if "billed_steps" in value else dict.fromkeys(FREE_KEYS)
        return {f"{key}{text}" if key in mine else key: poison(item, text, key) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item, text, name) for item in value]
    fixed = not isinstance(value, str) or name in CLOSED or value in TELLING
    return value if fixed else f"{value}{text}"


def spoilt(text: str) -> Results:
    return Results.model_validate(poison(results().model_dump(mode="json"), text.replace("\ud800\udfff", "")))


class Page(HTMLParser):
    """Tags and the names of attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.fixture(scope="module", autouse=True)
def _no_figures() -> Any:
    """Figures take a second each, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustlab.report.html.verdict_shares_svg", lambda *given: "")
        patch.setattr("robustlab.report.html.cost_effect_svg", lambda *given: "")
        yield


@pytest.fixture(scope="module")
def calm() -> list[tuple[str, tuple[str, ...]]]:
    return Page(render_report(results())).found


@pytest.mark.parametrize("name", TEXTS)
def test_a_page_with(room: Room, calm: list[tuple[str, tuple[str, ...]]], name: str) -> None:
    document = spoilt(TEXTS[name])
    with room.watched():
        html = render_report(document)
    assert Page(html).found == calm, "no element and no attribute is made or lost"
    assert not STEERING & set(html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    assert "script-src" not in policy[1]
    assert "<script" not in html.lower()


@pytest.mark.parametrize("name", TEXTS)
def test_commands_that_print(room: Room, name: str) -> None:
    document = spoilt(TEXTS[name])
    (room.work / "x.json").write_text(document.model_dump_json(), encoding="utf-8")
    policy = Path(__file__).parents[2] / "docs" / "policies" / "ten_dollars.yaml"
    for words in (
        ["report", "x.json"],
        ["report", "x.json", "--format", "markdown"],
        ["report", "x.json", "--format", "json"],
        ["gate", "x.json", "--policy", str(policy)],
        ["gate", "x.json", "--policy", str(policy), "--json"],
    ):
        ended = room.run(*words)
        assert ended.code in (0, 4, 5)
        assert not STEERING & set(ended.out + ended.err)


@pytest.mark.parametrize("name", TEXTS)
def test_markdown_with(name: str) -> None:
    calm, hostile = (to_markdown(build_grid([each])) for each in (results(), spoilt(TEXTS[name])))
    assert hostile.count("\n") == calm.count("\n")
    for sober, drunk in zip(calm.splitlines(), hostile.splitlines(), strict=True):
        assert len(re.findall(r"(?<!\\)\|", sober)) == len(re.findall(r"(?<!\\)\|", drunk))
    assert not re.search(r"<(?!br>)", hostile)
    assert "](http" not in hostile


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_with(name: str, terminal: bool) -> None:
    text = TEXTS[name]
    console = Console(file=io.StringIO(), force_terminal=terminal, width=4000, color_system=None)
    print_table(console, text, [text], [[text]])
    assert isinstance(console.file, io.StringIO)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()) if terminal else console.file.getvalue()
    assert not STEERING & set(shown)
    assert plain_text(text).strip() in shown


@pytest.mark.parametrize("name", TEXTS)
def test_a_spreadsheet_with(room: Room, name: str) -> None:
    folder = make_spoilt_run(room, TEXTS[name].replace("\ud800\udfff", ""))
    ended = room.run("ledger", "export", folder.run_id, "--out", "runs/x.csv")
    assert ended.code in (0, 1)
    if ended.code == 0:
        text = (room.runs / "x.csv").read_text(encoding="utf-8")
        cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
        words = [cell for cell in cells if not re.fullmatch(r"-?[0-9.]+", cell)]
        assert not [cell for cell in words if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def make_spoilt_run(room: Room, text: str) -> RunFolder:
    """A run whose ledger names its nodes, phases and purses as somebody else likes; its chain holds."""
    from tests.hostile.fuzz import genuine_chain

    folder = make_run(room.runs).folder
    (folder.path / "prices.yaml").write_text(CARD)
    lines = []
    for line in folder.ledger.read_bytes().splitlines():
        record = json.loads(line)
        names = {key: f"{text}{record[key]}" for key in ("node", "phase", "purse") if isinstance(record.get(key), str)}
        lines.append(json.dumps(record | names).encode())
    folder.ledger.write_bytes(genuine_chain(b"\n".join(lines)))
    return folder


@pytest.mark.parametrize("name", TEXTS)
def test_a_ledger_that_is_shown_with(room: Room, name: str) -> None:
    folder = make_spoilt_run(room, TEXTS[name].replace("\ud800\udfff", ""))
    for words in (["ledger", "verify"], ["ledger", "price"], ["custody"], ["ledger", "verify", "--json"]):
        ended = room.run(*words[:2], *words[2:], folder.run_id)
        assert ended.code in (0, 1, 2)
        assert not STEERING & set(ended.out + ended.err)


@pytest.mark.parametrize("name", TEXTS)
def test_a_name_on_the_command_line(room: Room, name: str) -> None:
    text = TEXTS[name].replace("\0", "")
    for words in (
        ["report", "--", text],
        ["plan", "--target", text, "--attack", "x", "--budget", "y", "--eval", "z"],
    ):
        ended = room.run(*words)
        assert ended.code in (1, 2)
        assert not STEERING & set(ended.out + ended.err)


@pytest.mark.parametrize("make", [lambda text: f"{text}.yaml", lambda text: f"{text}/x.yaml"])
def test_a_file_named_like_a_command(room: Room, make: Callable[[str], str]) -> None:
    path = room.work / "budgets" / make("\x1b[31m\u202e=1+1<script>")
    path.parent.mkdir(parents=True)
    path.write_text("kind: nothing")
    ended = room.run("check", "budgets")
    assert ended.code == 2
    assert not STEERING & set(ended.out + ended.err)
