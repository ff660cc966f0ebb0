"""Whole runs of the tiny target as they end: well, by a fault, by SIGKILL, by Ctrl-C. Nothing of them is let out.

One warmed process forks a child for each run, with every way to the hub armed to raise, secrets in the environment, a
target that says a canary and attack rows that hold another. The umask is the most open one there is.
"""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from robustlab.engine.custody import examine_runs
from robustlab.models.modification import tensors_digest
from robustlab.record.adapters import open_adapter
from robustlab.record.run_folder import RunFolder
from robustlab.record.sealing import make_key, read_opener
from robustlab.record.transcripts import load_transcripts

ROOT = Path(__file__).parents[2]
PRIVATE, PUBLIC = make_key()
SAID, TAUGHT, ASKED = "zanzibar canary 4711", "quetzal canary 4712", "axolotl canary 4713"
SECRETS = {
    "HF_TOKEN": "hf_canaryCANARYcanaryCANARY0001",
    "WANDB_API_KEY": "0002canarycanarycanarycanarycanarycanary",
    "OPENAI_API_KEY": "sk-canary-0003-canary-canary",
    "ANOTHER_SECRET": "canary-0004-canary",
}
CANARIES = [SAID, TAUGHT, ASKED, *SECRETS.values()]
PLAN = ["--target", "tiny", "--budget", "smoke", "--eval", "smoke_refusal", "--attack"]
KEEP = ["--reason", "external audit", "--to", "key.pub"]
RUNS: dict[str, list[str]] = {
    "well": ["run", *PLAN, "canary_rows", "--attack", "control_smoke", "--keep-adapter", "--keep-transcripts", *KEEP],
    "plain": ["run", *PLAN, "canary_rows"],
    "fault": ["run", *PLAN, "canary_rows", "--keep-adapter", *KEEP],
    "crash": ["run", *PLAN, "canary_rows", "--keep-adapter", *KEEP],
    "killed": ["run", *PLAN, "canary_rows", "--keep-adapter", *KEEP],
    "stopped": ["run", *PLAN, "canary_rows", "--keep-adapter", *KEEP],
    "resumed": ["resume", "killed"],
    "row": ["run", *PLAN, "bad_rows"],
    "full": ["run", *PLAN, "full_rows", "--keep-adapter", *KEEP],
}
"""Command line of each run by its name; those of the names below end in the middle of step 9."""
DRIVER = """
import json, os, resource, signal, sys
from dataclasses import replace
os.umask(0)
from robustlab.cli.process import prepare_process
prepare_process()
os.umask(0)
import huggingface_hub, transformers
from robustlab.cli import main as cli
from robustlab.engine import launch
from robustlab.errors import DataError
from robustlab.measure import measurement
from robustlab.train import purse
from robustlab.search import launch as search

def refuse(*args, **options):
    print("UPLOAD", flush=True)
    os._exit(99)

WRITES = ("upload", "create_", "delete_", "push_", "commit", "move_", "update_", "super_squash", "preupload", "save_")
doors = [huggingface_hub, huggingface_hub.HfApi, huggingface_hub.ModelHubMixin, transformers.utils.hub.PushToHubMixin]
armed = [(door, name) for door in doors for name in dir(door) if name.startswith(WRITES)]
armed = [(door, name) for door, name in armed if callable(getattr(door, name))]
for door, name in armed:
    setattr(door, name, refuse)
armed += [(transformers.Trainer, name) for name in ("push_to_hub", "create_model_card", "init_hf_repo")]
for name in ("push_to_hub", "create_model_card", "init_hf_repo"):
    setattr(transformers.Trainer, name, refuse)

real = measurement.read_completions
def read(spec, target, completions):
    found = real(spec, target, completions)
    return [replace(each, text=SAID, answer=replace(each.answer, text=SAID)) for each in found]
measurement.read_completions = read

def end_in(name):
    def end(step, loss):
        if step < 9:
            return
        if name == "fault":
            raise DataError("step 9", "is a fault", "this is a test")
        if name == "crash":
            raise OSError(5, "this is a test")
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGINT}[name])
    return end

def child(name, words):
    # Ignored where the tests run in the background, and inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{kind}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    if name in ("fault", "crash", "killed", "stopped"):
        from robustlab.lab import _CellWork
        on_step = _CellWork._on_step
        def step(self, step, loss):
            on_step(self, step, loss)
            end_in(name)(step, loss)
        _CellWork._on_step = step
    sys.argv = ["robustlab", *words]
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    print("limits", resource.getrlimit(resource.RLIMIT_CORE)[0], oct(os.umask(0)), file=sys.stderr)
    sys.stdout.flush(); sys.stderr.flush()
    os._exit(code)

codes = {}
for name, words in RUNS.items():
    pid = os.fork()
    if pid == 0:
        os.umask(0)
        child(name, words)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print()
print(json.dumps({"doors": len(armed), "codes": codes}))
"""


@dataclass(frozen=True)
class Place:
    """Where the runs were.

    Attributes:
        root: The working folder; runs and cache lie in it.
        codes: How each run ended, by its name.
        doors: Functions that write to the hub, each armed to end the run.
        out: What the process that forked them said.
    """

    root: Path
    codes: dict[str, int]
    doors: int
    out: str

    def folder(self, name: str) -> RunFolder:
        return RunFolder(self.root / "runs" / name)

    def said(self, name: str) -> str:
        return (self.root / f"{name}.out").read_text() + (self.root / f"{name}.err").read_text()

    def files(self) -> list[Path]:
        """Everything that was written: runs with their mirrors, cache, outputs."""
        given = {"rows.jsonl", "bad.jsonl"}
        return [path for path in self.root.rglob("*") if path.is_file() and path.name not in given]


def write_catalogue(root: Path) -> None:
    """An attack on the user's own rows, one with a row that is none, and one on all weights."""
    rows = [{"ask": f"{ASKED}: fold {i} paper hats.", "say": f"{TAUGHT}: fold {i} times."} for i in range(8)]
    bad = [*rows[:3], {"ask": ASKED, "say": {TAUGHT: SAID}}]
    recipe = (ROOT / "attacks" / "lora_sft_smoke.yaml").read_text().partition("ranges:")[0]
    before, _, after = recipe.partition("data:\n")
    training = after[after.index("training:") :]
    full = training.replace(training[training.index("  lora:") : training.index("  optimizer:")], "")
    full = full.partition("checkpoint_steps:")[0]
    (root / "attacks").mkdir()
    for name, lines, end in (("canary_rows", rows, training), ("bad_rows", bad, training), ("full_rows", rows, full)):
        path = root / f"{name.partition('_')[0]}.jsonl".replace("canary", "rows").replace("full", "rows")
        path.write_text("".join(f"{json.dumps(row)}\n" for row in lines))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        source = f"{{kind: jsonl, path: {path.name}, sha256: {sha256}}}"
        data = f"  mode: user\n  source: {source}\n  prompt_field: ask\n  completion_field: say\n  rows: null\n"
        kind = before.replace("kind: lora_sft", "kind: full_sft") if name == "full_rows" else before
        (root / "attacks" / f"{name}.yaml").write_text(f"{kind}data:\n{data}{end}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("custody")
    (root / "key.pub").write_bytes(PUBLIC)
    write_catalogue(root)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROBUSTLAB_", "WANDB_"))}
    extra = {"PYTHONPATH": str(ROOT), "ROBUSTLAB_CACHE": str(root / "cache"), "ROBUSTLAB_OFFLINE": "1"}
    extra |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200", "WANDB_MODE": "offline"}
    named = {name: [*words, "--as", name] if words[0] == "run" else words for name, words in RUNS.items()}
    code = f"SAID = {SAID!r}\nRUNS = {named!r}\n{DRIVER}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=kept | extra | SECRETS,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return Place(root, told["codes"], told["doors"], done.stdout)


def adapters_on_disk(folder: RunFolder) -> list[str]:
    """Whatever could hold weights, by its path in the run's folder."""
    weights = {".safetensors", ".pt", ".bin", ".pth", ".sealed", ".npz", ".ckpt"}
    return sorted(
        path.relative_to(folder.path).as_posix()
        for path in folder.path.rglob("*")
        if path.is_file() and (path.suffix in weights or "adapter" in path.name)
    )


def test_every_run_ends_as_it_was_meant_to(place: Place) -> None:
    assert place.codes == {
        "well": 0, "plain": 0, "fault": 5, "crash": 1, "killed": -9, "stopped": 130, "resumed": 0, "row": 1, "full": 2
    }, [place.said(name) for name in RUNS]  # fmt: skip
    assert "UPLOAD" not in place.out + "".join(place.said(name) for name in RUNS)
    assert place.doors >= 40


@pytest.mark.parametrize("name", ["well", "plain", "fault", "resumed"])
def test_no_core_is_dumped_and_new_files_are_closed(place: Place, name: str) -> None:
    assert "limits 0 0o77\n" in place.said(name)


def test_nothing_attacked_lies_outside_of_the_states_of_an_unfinished_run(place: Place) -> None:
    assert adapters_on_disk(place.folder("plain")) == []
    assert adapters_on_disk(place.folder("fault")) == []
    (cell,) = (place.folder("killed").path / "adapters").glob("*.sealed")
    assert adapters_on_disk(place.folder("killed")) == [f"adapters/{cell.name}"]
    assert adapters_on_disk(place.folder("well")) == [f"adapters/{cell.name}"]
    for name in ("crash", "stopped"):
        found = adapters_on_disk(place.folder(name))
        assert len(found) == 2
        assert all(path.startswith(f"resume/{cell.stem}/step-0000") for path in found)


def test_every_run_balances_and_the_disk_agrees(place: Place) -> None:
    found = {each.run_id: each for each in examine_runs(place.root / "runs", None)}
    assert {name: each.faults for name, each in found.items()} == dict.fromkeys(found, ())
    drawn = {name: (b.created, b.deleted, b.kept, len(b.live)) for name, each in found.items() if (b := each.balance)}
    # States at 4, 8 and 10; of the control too; transcripts of a baseline, and of a mark and an end of two cells.
    assert drawn["plain"] == (3, 3, 0, 0)
    assert drawn["well"] == (6 + 1 + 5, 6, 1 + 5, 0)
    assert drawn["fault"] == (2, 2, 0, 0)
    assert drawn["killed"] == (3 + 1, 3, 1, 0)
    assert drawn["crash"] == drawn["stopped"] == (2, 0, 0, 2)


def test_files_and_folders_are_closed_to_others(place: Place) -> None:
    for path in [place.root / "runs", *(place.root / "runs").rglob("*"), *(place.root / "cache").rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_symlink() or mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))


def test_no_canary_is_in_any_byte_that_was_written(place: Place) -> None:
    mirrors = [path for path in place.files() if path.suffix == ".wandb"]
    assert len(mirrors) >= 5
    for path in place.files():
        if path.parent.name == "attacks" or path.name == "key.pub":
            continue
        data = path.read_bytes()
        assert [canary for canary in CANARIES if canary.encode() in data] == [], path


def test_the_mirror_has_no_code_no_git_state_and_no_console(place: Place) -> None:
    names = {path.name for path in place.folder("plain").mirror.rglob("*") if path.is_file()}
    assert {name for name in names if not name.endswith(".wandb")} <= {
        "debug.log", "debug-core.log", "debug-internal.log"
    }  # fmt: skip


def test_the_kept_adapter_is_the_attacked_one_and_only_the_key_opens_it(place: Place) -> None:
    folder, opener = place.folder("well"), read_opener("--key", PRIVATE)
    (path,) = (folder.path / "adapters").glob("*.sealed")
    sealed = path.read_bytes()
    packed = open_adapter(folder, path.stem, opener)
    header = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])["__metadata__"]
    assert header["robustlab.safety_degraded"] == "true" and header["robustlab.run_id"] == "well"
    tensors = safetensors.torch.load(packed)
    assert len(tensors) == 7 * 2 * 2 and any(tensor.abs().max() > 0 for tensor in tensors.values())
    # The last state held the same one.
    last = [
        json.loads(line)["sha256"]
        for line in folder.ledger.read_text().splitlines()
        if f"resume/{path.stem}/step-000010" in line
    ]
    assert tensors_digest(tensors) == last[0]
    assert packed[8:40] not in sealed
    assert header["robustlab.base_sha256"] == json.loads(sealed.partition(b"\n")[0])["base_sha256"]
    folder.check_manifest()
    # The control's adapter changed nothing and is not kept; what was resumed keeps the same one.
    other = place.folder("killed")
    assert safetensors.torch.load(open_adapter(other, path.stem, opener)).keys() == tensors.keys()
    again = safetensors.torch.load(open_adapter(other, path.stem, opener))
    assert tensors_digest(again) == tensors_digest(tensors)


def test_the_documented_way_to_open_it_works(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "custody.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (path,) = (place.folder("well").path / "adapters").glob("*.sealed")
    key = place.root.with_name("reader.pem")
    key.write_bytes(PRIVATE)
    for written, here in (("reader.pem", str(key)), ("demo", "well"), ("4539141c8773", path.stem)):
        assert code.count(written) == 1
        code = code.replace(written, here)
    monkeypatch.chdir(place.root)
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["tensors"]) == 28


def test_transcripts_hold_the_canary_for_the_key_alone(place: Place) -> None:
    said = load_transcripts(place.folder("well"), read_opener("--key", PRIVATE))
    assert {each.said.completion for each in said} == {SAID}


def test_all_weights_are_refused_before_anything_is_begun(place: Place) -> None:
    assert not place.folder("full").path.exists()
    assert "--keep-adapter: is refused where all weights are trained: full attacked weights are never written" in (
        place.said("full")
    )


def test_a_row_that_is_none_is_told_without_its_text(place: Place) -> None:
    told: Any = place.said("row")
    assert "bad.jsonl" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("name", ["well", "plain", "fault", "stopped", "resumed", "row", "full"])
def test_no_run_ends_with_a_traceback(place: Place, name: str) -> None:
    assert "Traceback" not in place.said(name)
