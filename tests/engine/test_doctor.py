"""What the doctor looks at, and what it tells people to do."""

import os
from collections import namedtuple
from datetime import date, timedelta
from pathlib import Path

import pytest

from robustlab.cost.hardware import Device
from robustlab.cost.nvml import list_gpus
from robustlab.cost.prices import STALE_DAYS, load_price_card
from robustlab.engine import doctor
from robustlab.engine.doctor import PINNED, Finding, examine
from tests.cost.simulated_nvml import NVMLError, SimulatedGpu, SimulatedNvml, rack

Usage = namedtuple("Usage", "free")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def findings(today: date | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(today=today or date.today())}


def test_a_finding_that_is_wrong_says_what_to_do() -> None:
    assert all(finding.ok is (finding.remedy == "") for finding in findings().values())


def test_each_pinned_library_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.13.0+cpu", "trl": "0.1"}
    monkeypatch.setattr(doctor, "collect_versions", lambda threads: versions)
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    found = findings()
    assert found.keys() >= PINNED.keys()
    assert found["torch"] == Finding("torch", "2.13.0+cpu", True, "")
    assert found["trl"] == Finding("trl", "0.1", False, f"pip install trl=={PINNED['trl']}")
    assert found["peft"] == Finding("peft", "missing", False, f"pip install peft=={PINNED['peft']}")


def test_the_pins_are_those_of_the_constraints() -> None:
    path = Path(doctor.__file__).parents[2] / "constraints.txt"
    pins = dict(line.partition("==")[::2] for line in path.read_text(encoding="utf-8").splitlines() if "==" in line)
    assert {name: pins[name].partition(";")[0].strip() for name in PINNED} == PINNED


def test_artefacts_that_were_not_fetched_are_named(cache: Path) -> None:
    found = findings()
    missing = found["eval harmbench_64"]
    assert missing == Finding("eval harmbench_64", "not fetched", False, "robustlab fetch harmbench_64")
    assert {"target smollm2_135m_instruct", "safeguard refusal_sft", "eval over_refusal_32"} <= found.keys()
    assert not any("tiny" in name or "smoke" in name for name in found)
    sha256 = "4a7dc3757902cbacb84a21fedcadcfb674747d3d07edec8d62019321bbc60206"
    stored = cache / "artefacts" / sha256 / "harmbench_prompts.txt"
    stored.parent.mkdir(parents=True)
    stored.write_text("mild\n")
    assert findings()["eval harmbench_64"] == Finding("eval harmbench_64", "fetched", True, "")


def test_prices_grow_old() -> None:
    born = date.today() - timedelta(days=load_price_card(None).age_days(date.today()))
    assert findings(born + timedelta(days=STALE_DAYS))["price card"].ok
    old = findings(born + timedelta(days=STALE_DAYS + 1))["price card"]
    assert (old.found, old.remedy) == (
        f"{STALE_DAYS + 1} days old",
        "check the prices and bring the card up to date",
    )


def test_a_card_of_tomorrow_is_told() -> None:
    born = load_price_card(None).prices.as_of
    assert findings(born - timedelta(days=1))["price card"] == Finding(
        "price card", f"dated after today, {born - timedelta(days=1)}", False, "mend its as_of, or this machine's clock"
    )
    assert findings(born + timedelta(days=1))["price card"].found == "1 day old"


CUT = SimulatedNvml([SimulatedGpu("h100", "GPU-a0", mig=[SimulatedGpu("slice", "MIG-one")])])
SILENT = SimulatedNvml(rack("h100").gpus, later=NVMLError("GPU is lost"))


@pytest.mark.parametrize(
    ("nvml", "found", "remedy"),
    [
        (rack(), "none that NVML finds", ""),
        (rack("h100"), "1 x NVIDIA H100 80GB HBM3, 80 GB, billed as h100_sxm", ""),
        (rack(*["h200"] * 8), "8 x NVIDIA H200, 141 GB, billed as h200_sxm", ""),
        (
            CUT,
            "1 x NVIDIA H100 80GB HBM3 MIG 1g.10gb, 10 GB, which the price card does not know",
            "bill it with --shadow-price ITEM",
        ),
        (
            rack("h100", "a100"),
            "1 x NVIDIA A100-SXM4-80GB, 1 x NVIDIA H100 80GB HBM3",
            "choose one kind with CUDA_VISIBLE_DEVICES, by UUID (`nvidia-smi -L`)",
        ),
        (
            SILENT,
            "NVML: the GPU driver does not answer, got 'GPU is lost'",
            "see whether `nvidia-smi` works, or hide the GPUs with CUDA_VISIBLE_DEVICES=-1",
        ),
    ],
)
def test_gpus_and_what_they_are_billed_as(
    monkeypatch: pytest.MonkeyPatch, nvml: SimulatedNvml, found: str, remedy: str
) -> None:
    monkeypatch.setattr(doctor, "list_gpus", lambda: list_gpus(nvml, {}))
    assert findings()["GPU"] == Finding("GPU", found, remedy == "", remedy)


def test_a_small_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "detect_cpu", lambda: Device("cpu", "a chip", 4_000_000_000, 2))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(free=1_000_000_000))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = findings()
    assert found["memory"] == Finding("memory", "4.0 GB", False, "the demo needs 5 GB")
    assert found["cache"].remedy == "free 3 GB or set ROBUSTLAB_CACHE"
    assert found["cache"].found == f"{os.environ['ROBUSTLAB_CACHE']}, 1 GB free"
    assert found["processor"].found == "a chip, 2 cores, OMP_NUM_THREADS not set"


def test_a_library_that_fetches_code_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "0.9")
    found = findings()["kernels"]
    assert not found.ok
    assert found.remedy == "pip uninstall kernels: bitsandbytes would fetch and run unpinned code"


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1))
    assert findings()["Python"].remedy == "use Python 3.11 to 3.13"
    monkeypatch.setattr(doctor.sys, "version_info", (3, 13, 9))
    assert findings()["Python"].ok


def test_the_mode_of_wandb_is_offline_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert findings()["wandb mode"].found == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert findings()["wandb mode"].found == "online"
