"""A folder with a small catalogue and plan whose runs pass every failpoint, and everything that such a run is given."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from robustlab.record.sealing import make_key
from tests.search.conftest import TINY_ATTACK, TINY_BUDGET, TINY_EVAL, write_catalogue

NAME = "the-run"
COMMAND = ("run", "plan.yaml", "--as", NAME, "--runs", "runs")
PUBLIC_KEY = make_key()[1]
SAFEGUARD = """\
kind: deep_refusal_sft
source: "a test"
mild_repeats: 1
install: null
install_repeats: 0
benign_rows: 4
benign_new_tokens: 4
deep_share: 0.5
deepest_tokens: 8
seed: 0
training:
  lora: {rank: 4, alpha: 8, dropout: 0, modules: all-linear}
  optimizer: {learning_rate: 1e-2, curve: linear, warmup_steps: 1, weight_decay: 0, max_grad_norm: 1}
  steps: 2
  batch_rows: 2
  micro_batch_rows: 2
  max_tokens: 1024
"""
PLAN = """\
kind: plan
targets: [tiny]
safeguards: [{safeguard}]
attacks: [fault_attack]
budgets: [{budgets}]
evals: [fault_refusals, fault_benign]
seeds: [0]
"""
STEPS, SAVED_EVERY = 7, 2
BUDGETS = {
    # The schedule is cut before step 1, and the training is cut in its middle.
    "fault_steps": "{max_usd: 100, max_steps: 7}",
    "fault_tokens": "{max_usd: 100, max_train_tokens: 1200}",
}


@dataclass(frozen=True)
class Workplace:
    """One folder for one run: its catalogue, its cache and its runs.

    Attributes:
        root: The folder.
        command: The command line behind ``robustlab``.
        mirrored: Whether wandb mirrors the run.
    """

    root: Path
    command: tuple[str, ...]
    mirrored: bool = False

    @property
    def folder(self) -> Path:
        """The run's own."""
        return self.root / "runs" / NAME

    @property
    def environment(self) -> dict[str, str]:
        """No network, one thread, a cache of its own."""
        return {
            "ROBUSTLAB_CACHE": str(self.root / "cache"),
            "ROBUSTLAB_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "offline" if self.mirrored else "disabled",
        }


def make_cells(root: Path) -> Workplace:
    """Two cells, one that its steps end and one that its tokens end; transcripts and adapters are kept."""
    _write(root, safeguard="none", budgets="fault_steps, fault_tokens")
    (root / "key.pem").write_bytes(PUBLIC_KEY)
    kept = ("--keep-transcripts", "--keep-adapter", "--reason", "a test of crashes", "--to", "key.pem")
    return Workplace(root, (*COMMAND, *kept))


def make_guarded(root: Path) -> Workplace:
    """One cell on a target whose safeguard has to be installed."""
    _write(root, safeguard="fault_guard", budgets="fault_tokens")
    return Workplace(root, COMMAND)


def make_mirrored(root: Path) -> Workplace:
    """One cell that wandb mirrors."""
    _write(root, safeguard="none", budgets="fault_tokens")
    return Workplace(root, COMMAND, mirrored=True)


def make_search(root: Path) -> Workplace:
    """A search of three trials on the tiny target, with a confirmation."""
    write_catalogue(root, trials=3, caps="{max_usd: 100}")
    return Workplace(root, COMMAND)


def _write(root: Path, *, safeguard: str, budgets: str) -> None:
    attack = yaml.safe_load(TINY_ATTACK)
    # The requests of the eval are not those of the safeguard, and the attack trains on none of them.
    attack["data"] = {"mode": "distilled", "rows": 4, "benign_new_tokens": 4}
    del attack["ranges"]
    attack["training"]["lora"]["dropout"] = 0.1
    attack["training"]["steps"], attack["checkpoint_steps"] = STEPS + 2, SAVED_EVERY
    refusals = TINY_EVAL.format(
        kind="refusal", name="mild_requests_attack", more="split: all\nfunctional: [standard]\nby_category: false"
    ).replace("milestones: null", "milestones: {per_decade: 2, rows: 2}")
    texts = {
        "attacks/fault_attack.yaml": yaml.safe_dump(attack),
        "safeguards/fault_guard.yaml": SAFEGUARD,
        "evals/fault_refusals.yaml": refusals,
        "evals/fault_benign.yaml": TINY_EVAL.format(kind="benign_answers", name="benign_prompts", more=""),
        "plan.yaml": PLAN.format(safeguard=safeguard, budgets=budgets),
    }
    texts |= {f"budgets/{name}.yaml": TINY_BUDGET.format(caps=caps) for name, caps in BUDGETS.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
