"""What trains is imported for cells that train, before any meter runs, and not for an untouched target."""

import subprocess
import sys

PROGRAM = """
import sys
from types import SimpleNamespace
import robustlab.engine.launch
from robustlab.engine.subject import import_trainers
from robustlab.spec.catalog import load

TRAIN = {"peft", "trl", "datasets", "bitsandbytes"}
plain = SimpleNamespace(recipe=load("attacks", "untouched"), safeguard=load("safeguards", "none"))
import_trainers([plain])
assert not TRAIN & set(sys.modules), TRAIN & set(sys.modules)
trained = SimpleNamespace(recipe=plain.recipe, safeguard=load("safeguards", "refusal_sft"))
import_trainers([plain, trained])
assert TRAIN <= set(sys.modules), TRAIN - set(sys.modules)
"""


def test_only_cells_that_train_import_what_trains() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
