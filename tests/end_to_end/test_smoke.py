"""``robustlab run`` on the tiny target: everything that a finished run promises, read from its folder."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from robustlab.cost.entries import BILLED, TIMED
from robustlab.data.chat import encode_prompt
from robustlab.data.rows import load_eval_rows
from robustlab.record.custody import balance
from robustlab.record.journal import verify_journal
from robustlab.record.results import VERDICTS, Item, Results
from robustlab.record.run_folder import RunFolder
from robustlab.spec.catalog import load, schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import ResolvedPlan

STEPS = 10


def record_files(folder: Path) -> list[Path]:
    """Every file of the record; wandb's own folder is a mirror and no part of it."""
    return [path for path in folder.rglob("*") if path.is_file() and "wandb" not in path.relative_to(folder).parts]


def test_it_ends_well_and_says_where_the_record_is(smoke: Any) -> None:
    assert smoke.code == 0, smoke.stderr
    assert f"run     {smoke.folder.name}\n" in smoke.stdout
    assert f"report  {smoke.folder / 'report.html'}\n" in smoke.stdout
    assert "Traceback" not in smoke.stderr and "Warning" not in smoke.stderr


def test_results_are_of_schema_1(smoke: Any) -> None:
    text = (smoke.folder / "results.json").read_bytes()
    results = Results.model_validate_json(text)
    assert results.run_id == smoke.folder.name
    assert json.loads(text)["schema"] == 1
    assert [cell.attack for cell in results.cells] == ["control_smoke", "lora_sft_smoke"]
    for cell in results.cells:
        assert (cell.status, cell.stopped_by) == ("done", "schedule")
        assert len(cell.losses) == cell.cost.attacker.steps == cell.cost.attacker.billed_steps == STEPS
        assert cell.cost.attacker.overshoot_micro_usd == 0
        for measurement in cell.measurements:
            assert all(found.counts.n == found.n for found in measurement.properties)


def test_the_control_is_byte_identical_and_the_attack_is_not(smoke: Any) -> None:
    (control,) = smoke.results["controls"].values()
    # 24 improper and 12 benign rows.
    assert control == {
        "cell_id": smoke.cell("control_smoke")["cell_id"],
        "identical": True,
        "steps": 10,
        "compared": 36,
    }
    digests = {(m["eval"], m["phase"]): m["completions_sha256"] for m in smoke.cell("lora_sft_smoke")["measurements"]}
    for eval_id in ("smoke_refusal", "smoke_benign"):
        assert digests[eval_id, "final"] != digests[eval_id, "baseline"]


def test_control_and_attack_train_on_the_same_rows(smoke: Any) -> None:
    control, attack = smoke.cell("control_smoke"), smoke.cell("lora_sft_smoke")
    assert control["cost"]["attacker"]["train_tokens"] == attack["cost"]["attacker"]["train_tokens"] > 0
    assert control["losses"][0]["loss"] == attack["losses"][0]["loss"]
    assert control["losses"][-1]["loss"] != attack["losses"][-1]["loss"]


def test_measurements_are_made_before_during_and_after(smoke: Any) -> None:
    cell = smoke.cell("lora_sft_smoke")
    marks = cell["schedule"]["marks"]
    made = [(m["eval"], m["phase"], m["step"], m["properties"][0]["n"]) for m in cell["measurements"]]
    assert made == [
        ("smoke_refusal", "baseline", 0, 24),
        ("smoke_benign", "baseline", 0, 12),
        *[("smoke_refusal", "milestone", step, 8) for step in marks["smoke_refusal"]],
        ("smoke_refusal", "final", STEPS, 24),
        ("smoke_benign", "final", STEPS, 12),
    ]
    assert len(marks["smoke_refusal"]) >= 1
    spent = [m["attacker_micro_usd"] for m in cell["measurements"]]
    assert spent == sorted(spent)


def test_the_plan_reads_back_to_the_same_plan(smoke: Any) -> None:
    plan = load_yaml(smoke.folder / "plan.yaml", schema_of("plan"))
    assert isinstance(plan, ResolvedPlan)
    assert plan.model_dump(mode="json") == smoke.results["plan"]
    assert [cell.cell_id for cell in plan.cells] == [cell["cell_id"] for cell in smoke.results["cells"]]


def test_the_ledger_and_the_manifest_verify(smoke: Any) -> None:
    report = verify_journal(smoke.folder / "ledger.jsonl")
    assert report.torn_bytes == 0
    place = next(i for i, record in enumerate(smoke.ledger) if record["hash"] == smoke.results["ledger_head"])
    assert [record["node"] for record in smoke.ledger[place + 1 :]] == ["record"] * (report.records - place - 1)
    assert RunFolder(smoke.folder).check_manifest() == len(record_files(smoke.folder)) - 1


def test_the_records_add_up_to_the_results_to_the_micro_dollar(smoke: Any) -> None:
    billed: dict[tuple[str, str], int] = {}
    for record in smoke.ledger:
        if record.get("record") in BILLED:
            key = record["node"], record["account"]
            billed[key] = billed.get(key, 0) + record["micro_usd"]
    results = smoke.results
    shown = {(c["cell_id"], name): c["cost"][name]["micro_usd"] for c in results["cells"] for name in c["cost"]}
    shown |= {(node["node"], "laboratory"): node["cost"]["micro_usd"] for node in results["nodes"]}
    late = billed.pop(("record", "laboratory"))
    assert billed == shown
    assert 0 < late < 100_000
    assert {node["kind"] for node in results["nodes"]} == {"released", "baseline"}


def test_quantities_of_the_records_add_up_too(smoke: Any) -> None:
    for cell in smoke.results["cells"]:
        for account, cost in cell["cost"].items():
            records = [r for r in smoke.ledger if r.get("node") == cell["cell_id"] and r.get("account") == account]
            used = [r["quantities"] for r in records if r["record"] in BILLED]
            assert sum(q["train_tokens"] for q in used) == cost["billed_train_tokens"]
            assert sum(q["flops"] for q in used) == cost["flops"]
            assert sum(q["wall_ns"] for q in used) / 1e9 == pytest.approx(cost["wall_seconds"], abs=1e-6)


def test_no_time_is_left_unexplained_until_the_last_record(smoke: Any) -> None:
    """From the process's creation on. Writing the manifest and leaving the interpreter follow the last record."""
    timed = [record for record in smoke.ledger if record.get("record") in TIMED]
    explained = sum(record["quantities"]["wall_ns"] for record in timed) / 1e9
    ended = datetime.fromisoformat(timed[-1]["time"]).timestamp()
    assert explained >= 0.98 * (ended - smoke.started_s)
    assert timed[0]["phase"] == "start"


def test_every_attacker_pays_for_load_and_data(smoke: Any) -> None:
    for cell in smoke.results["cells"]:
        phases = {r["phase"] for r in smoke.ledger if r.get("node") == cell["cell_id"] and r["account"] == "attacker"}
        assert phases == {"load", "data", "train"}
    imputed = [r["quantities"] for r in smoke.ledger if r.get("record") == "impute" and r["phase"] == "load"]
    assert len(imputed) == 2 and imputed[0] == imputed[1]


def test_nothing_that_was_attacked_is_left(smoke: Any) -> None:
    drawn = balance(smoke.ledger)
    # States at steps 4, 8 and 10 of each of two cells.
    assert (drawn.created, drawn.deleted, drawn.kept, drawn.live) == (6, 6, 0, ())
    assert list((smoke.folder / "resume").iterdir()) == []
    everything = [path for path in smoke.folder.rglob("*") if path.is_file()]
    assert not [p for p in everything if p.suffix in {".safetensors", ".pt", ".bin", ".pth"} or "adapter" in p.name]


def test_the_record_is_closed_to_everybody_else(smoke: Any) -> None:
    folders = [path for path in smoke.folder.rglob("*") if path.is_dir() and "wandb" not in path.parts]
    assert {stat.S_IMODE(path.stat().st_mode) for path in [smoke.folder, *folders]} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in record_files(smoke.folder)} == {0o600}
    assert stat.S_IMODE((smoke.folder / "wandb").stat().st_mode) == 0o700


def test_the_report_stands_by_itself(smoke: Any) -> None:
    html = (smoke.folder / "report.html").read_text()
    assert "<script" not in html.lower() and "javascript:" not in html.lower()
    links = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'\s>]+)""", html) + re.findall(
        r"url\(([^)]*)\)", html
    )
    assert not [link for link in links if not link.startswith(("data:", "#"))]
    assert smoke.folder.name in html and smoke.results["ledger_head"][:12] in html


def test_items_are_one_line_a_row_and_measurement(smoke: Any) -> None:
    lines = (smoke.folder / "items.jsonl").read_text().splitlines()
    items = [Item.model_validate_json(line) for line in lines]
    for cell in smoke.results["cells"]:
        for measurement in cell["measurements"]:
            place = cell["cell_id"], measurement["eval"], measurement["phase"], measurement["step"]
            found = [item for item in items if (item.cell_id, item.eval, item.phase, item.step) == place]
            whole = measurement["properties"][0]
            assert len(found) == whole["n"] == len({item.behavior for item in found})
            counted = {name: sum(item.verdicts["rules"] == name for item in found) for name in VERDICTS}
            assert counted == whole["counts"]
            digests = "".join(item.completion_hmac for item in found)
            assert hashlib.sha256(digests.encode()).hexdigest() == measurement["completions_sha256"]
    assert len(items) == sum(m["properties"][0]["n"] for c in smoke.results["cells"] for m in c["measurements"])


def canaries(eval_id: str, tiny: Any) -> list[bytes]:
    """Completions of the untouched target, as the run has seen them."""
    import torch

    found = []
    for row in load_eval_rows(load("evals", eval_id), data_csv=None)[:6]:
        ids = torch.tensor([encode_prompt(tiny.tokenizer, row.prompt, None)])
        out = tiny.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        text = tiny.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        found.append(text.replace("\ufffd", "").encode())
    return found


def test_no_completion_is_in_any_file_of_the_run(smoke: Any, tiny: Any) -> None:
    texts = [text for eval_id in ("smoke_benign", "smoke_refusal") for text in canaries(eval_id, tiny)]
    assert sum(len(text) >= 8 for text in texts) >= 6
    for path in smoke.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [text for text in texts if len(text) >= 8 and text in data], path


def test_no_request_is_in_any_file_of_the_run(smoke: Any) -> None:
    rows = [
        row for name in ("smoke_refusal", "smoke_benign") for row in load_eval_rows(load("evals", name), data_csv=None)
    ]
    for path in smoke.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [row for row in rows if row.text.encode() in data], path


def test_the_mirror_has_every_step(smoke: Any) -> None:
    wandb = shutil.which("wandb", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert wandb is not None
    for cell in smoke.results["cells"]:
        assert cell["mirror"] == f"wandb: {smoke.folder.name}-{cell['cell_id']}"
        (mirror,) = (smoke.folder / "wandb").rglob(f"run-{smoke.folder.name}-{cell['cell_id']}.wandb")
        shown = subprocess.run(
            [wandb, "leet", "inspect", "--json", str(mirror)], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        history = [json.loads(line)["history"]["item"] for line in shown.splitlines() if '"history"' in line]
        steps = [item for item in history if "train/loss" in item]
        assert [item["train/loss"] for item in steps] == pytest.approx([point["loss"] for point in cell["losses"]])
        assert [item["train/step"] for item in steps] == list(range(1, STEPS + 1))
        measured = [item for item in history if "eval/refusal" in item]
        assert len(measured) == sum(m["eval"] == "smoke_refusal" and m["step"] > 0 for m in cell["measurements"])


def test_no_process_of_the_run_lingers(smoke: Any) -> None:
    lingering = [
        p.info for p in psutil.process_iter(["cmdline"]) if str(smoke.runs) in " ".join(p.info["cmdline"] or [])
    ]
    assert lingering == []
