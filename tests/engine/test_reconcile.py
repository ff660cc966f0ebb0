"""A finished run is reconciled from its ledger: what is measured, what is assumed, and what it cannot say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustlab.cost.entries import Entry
from robustlab.cost.hardware import find_hardware
from robustlab.cost.prices import PriceCard, load_price_card
from robustlab.cost.quantities import Quantities
from robustlab.engine.plan import resolve_offline
from robustlab.engine.reconcile import reconcile_run
from robustlab.engine.reconciliation import Reconciliation, Section, describe, to_dict
from robustlab.errors import ConfigError, RecordError
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder, write_json
from robustlab.spec.plan import Plan

RUN_ID = "20261122T021733Z-a1b2c3"
SECOND = 10**9
CARD = load_price_card(None)
AUDIT = "kimi_k25_audit"
ATTACK, SECOND_SEED, CONTROL = "c0ffee000001", "c0ffee000005", "c0ffee000003"


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The resolved plan of an attack on the tiny target."""
    ids = {"targets": ["tiny"], "safeguards": ["none"], "attacks": ["lora_sft_smoke"], "budgets": ["smoke"]}
    written = Plan.model_validate_json(json.dumps({"kind": "plan", "evals": ["smoke_refusal"], "seeds": [0], **ids}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve_offline(written, card=CARD, data_csv=None, shadow_price=None).plan.model_dump(mode="json")


def entry(
    node: str, account: Any, phase: str, seconds: int, record: Any = "settle", **counts: int
) -> dict[str, object]:
    quantities = Quantities(wall_ns=seconds * SECOND, device_ns=seconds * SECOND, **counts)
    made = Entry(record, node, "smoke", account, phase, {}, quantities, 0, "cpu_2vcpu_8gb", "2026-11-22T02:17:33+00:00")
    return made.to_dict()


def attack(node: str, tokens: int) -> Iterator[dict[str, object]]:
    """10 s of load, 5 s of data, and 32 steps of a second that take one token more each."""
    yield entry(node, "attacker", "load", 10)
    yield entry(node, "attacker", "data", 5, flops=50 * 10**9, prompt_tokens=300, generated_tokens=200)
    yield entry(node, "attacker", "train", 0, "reserve")
    for step in range(32):
        yield entry(node, "attacker", "train", 1, train_tokens=tokens + step, steps=1, flops=29 * 10**9)
    yield entry(node, "laboratory", "final", 100, flops=10**12, prompt_tokens=9_000, generated_tokens=5_000)


@pytest.fixture
def build(factory: Any, plan: dict[str, object], tmp_path: Path) -> Any:
    """Builder of a finished run with a ledger and a price card."""

    def finish(cells: list[dict[str, Any]], records: list[dict[str, object]], **changes: Any) -> RunFolder:
        folder = RunFolder.create(tmp_path, RUN_ID)
        named = {"target": "tiny", "safeguard": "none", "budget": "smoke"}
        document = {"run_id": RUN_ID, "plan": plan, "price_card_sha256": CARD.sha256, **changes}
        write_json(folder.results, factory.results(*({**cell, **named} for cell in cells), **document))
        folder.prices.write_bytes(CARD.path.read_bytes())
        with Journal.open(folder.ledger) as journal:
            for record in records:
                journal.append(record)
        folder.write_manifest()
        return folder

    return finish


@pytest.fixture
def run(factory: Any, build: Any) -> RunFolder:
    """One attack that broke refusals and its control."""
    custody = {"kind": "custody", "artefact": "resume/x"}
    shared = entry("released-1", "laboratory", "safeguard", 20, flops=10**11, train_tokens=1_000, steps=4)
    return build([factory.broken_cell(), factory.control_cell()], [shared, *attack(ATTACK, 100), custody])


def reconcile(folder: RunFolder, reference: str | None = AUDIT, card: PriceCard | None = None) -> Reconciliation:
    return reconcile_run(folder.path.parent, RUN_ID, reference=reference, card=card)


def sections(found: Reconciliation) -> dict[str, Section]:
    return {section.title.split(":")[0]: section for section in describe(found)}


def test_three_estimates_from_the_attackers_ledger(run: RunFolder) -> None:
    (attacker,) = reconcile(run).attackers
    device, tokens, flops = attacker.reckonings
    # 47 s at $0.0496 an hour; the 10 s of load are idle.
    assert float(device.usd.centre) == pytest.approx(47 * 0.0496 / 3600)
    assert float(device.usd.low) == pytest.approx(37 * 0.0496 / 3600)
    # 32 steps of 100 to 131 tokens: 3,696.
    assert attacker.total.train_tokens == 3_696
    assert float(tokens.usd.centre) == pytest.approx((3_696 * 4.40 + 300 * 1.47 + 200 * 3.66) / 1e6)
    assert float(tokens.usd.high) == pytest.approx((3_696 * 15.40 + 300 * 5.15 + 200 * 12.81) / 1e6)
    assert attacker.total.flops == (50 + 32 * 29) * 10**9
    assert flops.route == "C FLOP-derived"
    # 32 x 29 GFLOP in 32 s on a device of 290 GFLOP/s.
    assert attacker.mfu == pytest.approx(0.1)


def test_a_target_that_the_plan_does_not_hold_is_damage(run: RunFolder) -> None:
    document = json.loads(run.results.read_bytes())
    for cell in document["cells"]:
        cell["target"] = "another"
    write_json(run.results, document)
    run.write_manifest()
    with pytest.raises(RecordError, match=r"the plan holds no target 'another', and yet 'another .*; do not trust"):
        reconcile(run)


def test_a_torn_ledger_is_damage(run: RunFolder) -> None:
    with run.ledger.open("ab") as file:
        file.write(b"{")
    run.write_manifest()
    with pytest.raises(RecordError, match=r"ends in 1 bytes of an unfinished record, though the run has ended; do not"):
        reconcile(run)


def test_a_manifest_that_is_nested_without_end_is_damage(run: RunFolder) -> None:
    run.manifest.write_text("[" * 200_000)
    with pytest.raises(RecordError, match=r"manifest\.json: is not a manifest; do not trust"):
        reconcile(run)


def test_the_laboratory_stands_apart_and_holds_every_node(run: RunFolder) -> None:
    laboratory = reconcile(run).laboratory
    assert laboratory is not None
    assert laboratory.total.device_ns == 120 * SECOND
    assert laboratory.total.train_tokens == 1_000


def test_tokens_to_break_are_those_of_the_first_mark_that_stayed_broken(run: RunFolder) -> None:
    (projection,) = reconcile(run).projections
    (reading,) = projection.readings
    # The mark at step 24: 24 x 100 + (0 + ... + 23) = 2,676 tokens.
    assert (reading.tokens_to_break, reading.outcome) == (2_676, "BROKEN at $0.000600")
    assert projection.tokens is not None
    assert projection.tokens.source == "1 of 1 seeds broke; one seed: no band"
    by_token, by_flops = projection.reckonings
    assert float(by_token.usd.centre) == pytest.approx(2_676 * 4.40 / 1e6)
    assert float(by_token.usd.high) == pytest.approx(2_676 * 15.40 / 1e6)
    assert float(by_flops.usd.centre) == pytest.approx(2_676 * 0.2651 / 1e6, rel=1e-3)


def test_steps_that_a_resume_took_back_are_counted_once(factory: Any, build: Any) -> None:
    records = list(attack(ATTACK, 100))
    lost = entry(ATTACK, "attacker", "rewind", 0, "rewind", train_tokens=120 + 121, steps=2)
    again = [entry(ATTACK, "attacker", "train", 1, train_tokens=tokens, steps=1) for tokens in (120, 121)]
    undone = entry(ATTACK, "attacker", "train", 1, "overshoot", train_tokens=999, steps=1)
    # Position 25 follows load, data, the reservation and 22 steps.
    folder = build([factory.broken_cell()], [*records[:25], lost, *again, undone, *records[25:]], controls={})
    (projection,) = reconcile(folder).projections
    assert projection.readings[0].tokens_to_break == 2_676
    assert reconcile(folder).attackers[0].total.train_tokens == 3_696 + 241 + 999


def test_tokens_of_a_step_that_is_not_done_belong_to_the_next(factory: Any, build: Any) -> None:
    records = list(attack(ATTACK, 100))
    part = entry(ATTACK, "attacker", "train", 1, train_tokens=50)
    reserved = entry(ATTACK, "attacker", "train", 0, "reserve", steps=1)
    # Position 27 follows step 24.
    folder = build([factory.broken_cell()], [*records[:27], part, reserved, *records[27:]], controls={})
    assert reconcile(folder).projections[0].readings[0].tokens_to_break == 2_676


def test_a_break_without_a_price_projects_nothing(factory: Any, build: Any) -> None:
    spent = [0, 60, 190, 600, 1_200]
    course = factory.course("harmbench_64", "refusal", [0.975, 0.95, 0.7, 0.1, 0.0125], spent, "broken", broken_at=None)
    cell = factory.broken_cell(status="destructive", measurements=course)
    (projection,) = reconcile(build([cell], list(attack(ATTACK, 100)), controls={})).projections
    assert projection.readings[0].outcome == "BROKEN (destructive: no cost)"
    assert (projection.readings[0].tokens_to_break, projection.reckonings) == (None, ())


def test_seeds_make_the_band_and_those_that_held_are_told(factory: Any, build: Any) -> None:
    course = factory.course("harmbench_64", "refusal", [0.975, 0.95, 0.95], [0, 60, 600], "survived")
    held = factory.broken_cell(cell_id="c0ffee000006", seed=2, measurements=course)
    cells = [factory.broken_cell(), factory.broken_cell(cell_id=SECOND_SEED, seed=1), held]
    records = [*attack(ATTACK, 100), *attack(SECOND_SEED, 200), *attack("c0ffee000006", 100)]
    found = reconcile(build(cells, records, controls={}))
    (projection,) = found.projections
    assert projection.tokens is not None
    assert [int(end) for end in vars(projection.tokens.spread).values()] == [2_676, 3_876, 5_076]
    lines = sections(found)["Tokens to break, measured"].lines
    assert lines[0] == "2 of 3 seeds broke: the band is of those, the others used up to 20,480 tokens"


def test_nothing_broken_is_a_lower_bound_without_a_projection(factory: Any, build: Any) -> None:
    folder = build([factory.benign_cell(cell_id=ATTACK)], list(attack(ATTACK, 100)), controls={})
    found = reconcile(folder)
    assert (found.projections[0].tokens, found.projections[0].reckonings) == (None, ())
    told = sections(found)
    (line,) = told["Tokens to break, measured"].lines
    assert line == (
        "nothing broke at a price: a lower bound, 20,480 train tokens were not enough; no break is projected"
    )
    assert told["Tokens to break, measured"].rows == (("0", "ERODED", "-", "20,480"),)
    assert "Projection, not measurement" not in told
    assert "What $500 and 10 h buy, all of it assumed" in told


def test_what_the_purse_buys(run: RunFolder) -> None:
    rows = [(each.route[0], each.item, each.buys) for each in reconcile(run).purchases]
    assert rows == [
        ("A", "h100_sxm", "16 devices at most for 10 h"),
        ("A", "1 x h100_sxm", "10 h for $29.50; $500.00 after 169.49 h"),
        ("A", "8 x h200_sxm", "10 h for $280.00; $500.00 after 17.86 h"),
        ("A", "16 x h100_sxm", "10 h for $472.00; $500.00 after 10.59 h"),
        ("A", "64 x h100_sxm", "10 h for $1,888.00; $500.00 after 2.65 h"),
        ("B", "kimi_k2_5_tokens_32k", "113.6 M train tokens"),
        ("B", "kimi_k2_5_tokens_128k", "32.5 M train tokens"),
        ("C", "h100_sxm, best case of price and MFU", "3,843.9 M train tokens"),
        ("C", "h100_sxm, centre of price and MFU", "1,885.8 M train tokens"),
        ("C", "h100_sxm, worst case of price and MFU", "139.1 M train tokens"),
    ]
    lines = sections(reconcile(run))["What $500 and 10 h buy, all of it assumed"].lines
    assert lines[0].startswith("C takes 4N for LoRA on Kimi K2.5: 1.28e+11 FLOP a token")
    assert lines[1].endswith("would be 49 times too high")


def test_the_text_keeps_measured_and_assumed_apart(run: RunFolder) -> None:
    told = sections(reconcile(run))
    accounts = "Attacker of tiny / none / lora_withheld / seed 0", "Laboratory of the whole run"
    rest = "What $500 and 10 h buy, all of it assumed", "Projection, not measurement", "What this rests on"
    assert list(told) == [*accounts, "Tokens to break, measured", *rest]
    attacker = told[accounts[0]]
    assert attacker.columns == ("Estimate", "Low", "Centre", "High", "Depends on")
    assert attacker.rows[0] == (
        "A device-billed",
        "$0.000510",
        "$0.000648",
        "$0.000648",
        "47.0 device-s x $0.0496 an hour",
    )
    assert attacker.rows[1][4] == "$0.0496/h (assumed: price card, cpu_2vcpu_8gb; the card has no band)"
    assert attacker.rows[2][4] == "0 % to 21 % (measured: time of phases without operations)"
    assert attacker.lines[0].startswith(
        "implied MFU 10 %: 928 GFLOP of training / (32.0 device-s x 290 GFLOP/s float32"
    )
    projected = told["Projection, not measurement"]
    assert "(measured: 1 of 1 seeds broke; one seed: no band)" in projected.rows[1][4]
    assert all("assumed" in row[4] for row in projected.rows if row[0].split()[0] in ("price", "MFU"))
    assert told["What this rests on"].lines[-3:] == (
        "kimi_k25_audit: refusals of Kimi K2.5 on HarmBench fell from 100 % to 5 % for under $500 of compute and about "
        "10 hours (Import AI 454 on arXiv 2604.03121)",
        "details unverified: method, data, steps, subset, judge and what the hours include",
        "the 5 % is a claim about refusals, not about harmfulness and not an attack success rate",
    )


def test_without_a_reference_only_the_run_is_told(run: RunFolder) -> None:
    found = reconcile(run, reference=None)
    assert [each.route[0] for each in found.attackers[0].reckonings] == ["A", "C"]
    assert (found.purchases, found.projections[0].reckonings) == ((), ())
    told = sections(found)
    assert "no estimate B: a token of this target has no price; --reference names one's" in (
        told["Attacker of tiny / none / lora_withheld / seed 0"].lines
    )
    assert not any("Kimi" in line for section in told.values() for line in section.lines)


def test_a_shadow_price_is_told(factory: Any, build: Any, plan: dict[str, object]) -> None:
    shadowed = plan | {"shadow_price": "h100_sxm", "hardware": "h100_sxm"}
    found = reconcile(build([factory.broken_cell()], list(attack(ATTACK, 100)), controls={}, plan=shadowed))
    assert float(found.attackers[0].reckonings[0].usd.centre) == pytest.approx(47 * 2.95 / 3600)
    lines = sections(found)["Attacker of tiny / none / lora_withheld / seed 0"].lines
    assert lines[-1] == "billed by --shadow-price h100_sxm: rate, peak and MFU are that device's, the time is not"


def test_an_unknown_peak_leaves_c_out(factory: Any, build: Any, plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build([factory.broken_cell()], list(attack(ATTACK, 100)), controls={})
    blind = find_hardware("cpu_2vcpu_8gb", "x").model_copy(
        update={"peak_flops": {"bfloat16": 1.0e12}, "dtype": "bfloat16"}
    )
    known = {"cpu_2vcpu_8gb": blind, "h100_sxm": find_hardware("h100_sxm", "x")}
    monkeypatch.setattr("robustlab.engine.reconcile.find_hardware", lambda key, where: known[key])
    found = reconcile(folder)
    assert [each.route[0] for each in found.attackers[0].reckonings] == ["A", "B"]
    line = "no estimate C: no float32 peak of cpu_2vcpu_8gb is known, or the cells differ in element type"
    assert line in sections(found)["Attacker of tiny / none / lora_withheld / seed 0"].lines


def test_another_card_prices_anew(run: RunFolder, tmp_path: Path) -> None:
    dear = tmp_path / "dear.yaml"
    dear.write_text(CARD.path.read_text(encoding="utf-8").replace("0.0496", "0.0992"), encoding="utf-8")
    found = reconcile(run, card=load_price_card(dear))
    assert found.card.startswith(f"priced anew with {dear}, as of 2026-11-22")
    assert float(found.attackers[0].reckonings[0].usd.centre) == pytest.approx(47 * 0.0992 / 3600)
    assert reconcile(run).card == f"the run's own prices, as of 2026-11-22 (sha256 {CARD.sha256[:12]})"


def test_a_reconciliation_is_plain_data_too(run: RunFolder) -> None:
    plain = json.loads(json.dumps(to_dict(reconcile(run)), allow_nan=False))
    assert plain["attackers"][0]["estimates"][0]["usd"]["centre"] == pytest.approx(47 * 0.0496 / 3600)
    assert plain["attackers"][0]["estimates"][2]["sensitivity"][1]["factor"] == "MFU"
    assert plain["projections"][0]["kind"] == "projection, not measurement"
    assert plain["projections"][0]["seeds"][0]["tokens_to_break"] == 2_676
    assert plain["reference"]["details"] == "unverified"
    assert len(plain["purchases"]) == 10
    bare = to_dict(reconcile(run, reference=None))
    assert (bare["reference"], bare["purchases"]) == (None, [])


def test_budgets_are_told_apart_and_cells_that_never_began_are_left_out(factory: Any, build: Any) -> None:
    ended = {"status": "incomplete", "stopped_by": "total_usd", "incomplete_by": "total_usd", "measurements": []}
    cells = [factory.broken_cell(), factory.broken_cell(cell_id=SECOND_SEED, seed=1, **ended)]
    folder = build(cells, list(attack(ATTACK, 100)), controls={})
    assert [each.cell_id for each in reconcile(folder).attackers] == [ATTACK]
    plain = json.loads(folder.results.read_bytes())
    plain["cells"][1]["budget"] = "usd_10"
    folder.results.write_text(json.dumps(plain))
    folder.write_manifest()
    assert "Attacker of tiny / none / lora_withheld / seed 0 under smoke" in sections(reconcile(folder))


class TestBadInput:
    """A clear error each, and nothing written."""

    def test_a_reference_that_does_not_exist(self, run: RunFolder) -> None:
        with pytest.raises(ConfigError, match=r"^--reference: there is no reference 'kimi'; did you mean"):
            reconcile(run, reference="kimi")

    def test_a_run_that_has_not_ended(self, run: RunFolder) -> None:
        run.manifest.unlink()
        with pytest.raises(ConfigError, match="has not ended"):
            reconcile(run)

    def test_controls_only(self, factory: Any, build: Any) -> None:
        folder = build([factory.control_cell()], list(attack(CONTROL, 100)))
        with pytest.raises(ConfigError) as caught:
            reconcile(folder)
        problem = "holds no attack to reconcile, got 1 control cells only; run an attack that may learn"
        assert str(caught.value) == f"run {RUN_ID!r}: {problem}"

    def test_nothing_that_began(self, factory: Any, build: Any) -> None:
        ended = {"status": "incomplete", "stopped_by": "total_usd", "incomplete_by": "total_usd", "measurements": []}
        folder = build([factory.broken_cell(**ended)], [], controls={})
        with pytest.raises(
            ConfigError, match="got 0 control cells and 1 that never began only; run an attack that may"
        ):
            reconcile(folder)

    def test_no_ledger(self, run: RunFolder) -> None:
        run.ledger.unlink()
        run.write_manifest()
        with pytest.raises(RecordError) as caught:
            reconcile(run)
        assert str(caught.value) == f"{run.ledger}: cannot be read: No such file or directory; name a run that exists"

    def test_a_ledger_without_the_attack(self, factory: Any, build: Any) -> None:
        folder = build([factory.broken_cell()], list(attack(SECOND_SEED, 100)), controls={})
        with pytest.raises(RecordError) as caught:
            reconcile(folder)
        label = "tiny / none / lora_withheld / seed 0"
        problem = f"the ledger holds nothing of the attacker of {label!r}; do not trust this run; repeat it"
        assert str(caught.value) == f"run {RUN_ID!r}: {problem}"

    def test_a_ledger_that_ends_before_the_break(self, factory: Any, build: Any) -> None:
        folder = build([factory.broken_cell()], list(attack(ATTACK, 100))[:10], controls={})
        with pytest.raises(
            RecordError, match="the ledger settles no step 24 of 'tiny / none / lora_withheld / seed 0'"
        ):
            reconcile(folder)

    def test_a_ledger_of_an_older_version(self, factory: Any, build: Any) -> None:
        records = [{key: value for key, value in each.items() if key != "purse"} for each in attack(ATTACK, 100)]
        folder = build([factory.broken_cell()], records, controls={})
        with pytest.raises(RecordError, match="was made by an older version: it names no purse"):
            reconcile(folder)

    def test_a_run_without_its_card(self, factory: Any, build: Any) -> None:
        run = build([factory.broken_cell()], list(attack(ATTACK, 100)), controls={}, price_card_sha256="0" * 64)
        run.prices.unlink()
        run.write_manifest()
        with pytest.raises(ConfigError) as caught:
            reconcile(run)
        problem = f"has sha256 {CARD.sha256}, the results name {'0' * 64}: money cannot be computed again"
        remedy = "put the run's own card back, or price it anew with --prices"
        assert str(caught.value) == f"{CARD.path}: {problem}; {remedy}"
        assert reconcile(run, card=CARD).card.startswith("priced anew")

    def test_a_run_from_before_cards_were_copied(self, run: RunFolder) -> None:
        run.prices.unlink()
        run.write_manifest()
        assert reconcile(run).card.startswith("the run's own prices")

    def test_a_card_that_is_not_the_runs_own(self, run: RunFolder) -> None:
        run.prices.write_bytes(CARD.path.read_bytes() + b"# more\n")
        run.write_manifest()
        with pytest.raises(ConfigError, match=rf"prices\.yaml: has sha256 \w+, the results name {CARD.sha256}: money"):
            reconcile(run)

    def test_a_card_without_the_prices_of_the_reference(self, run: RunFolder, tmp_path: Path) -> None:
        card = tmp_path / "bare.yaml"
        text = CARD.path.read_text(encoding="utf-8")
        card.write_text(text.replace("kimi_k2_5_tokens_128k", "other"), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            reconcile(run, card=load_price_card(card))
        assert str(caught.value).startswith(f"run {RUN_ID!r}: 'kimi_k2_5_tokens_128k' has no price in {card}; did you")

    def test_a_plan_of_another_version(self, factory: Any, build: Any) -> None:
        folder = build([factory.broken_cell()], list(attack(ATTACK, 100)), controls={}, plan={"kind": "resolved_plan"})
        with pytest.raises(RecordError) as caught:
            reconcile(folder)
        problem = "holds a plan of another version: hardware; use the version of robustlab that wrote it"
        assert str(caught.value) == f"{folder.results}: {problem}"

    def test_nothing_is_written(self, run: RunFolder) -> None:
        before = run.manifest.read_bytes()
        reconcile(run)
        assert run.check_manifest() == 3
        assert run.manifest.read_bytes() == before
