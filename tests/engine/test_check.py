"""Every fault of every file at once; a file's folder tells what it should be."""

from pathlib import Path

import pytest

from robustlab.engine.check import check_paths
from robustlab.errors import ConfigError
from robustlab.spec.catalog import KINDS, package_root

PLAN = "kind: plan\ntargets: [a]\nsafeguards: [b]\nattacks: [c]\nbudgets: [d]\nevals: [e]\nseeds: [0]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        (tmp_path / kind).mkdir()
    return tmp_path


def test_the_catalogue_has_no_faults() -> None:
    checked, faults = check_paths([package_root() / kind for kind in KINDS])
    assert checked == sum(1 for kind in KINDS for _ in (package_root() / kind).glob("*.yaml"))
    assert faults == []


def test_faults_of_all_files_come_in_the_order_of_the_files(folder: Path) -> None:
    (folder / "budgets" / "b.yaml").write_text("kind: budget\nhardware: 3\n")
    (folder / "budgets" / "a.yaml").write_bytes(b"kind: \xff\n")
    (folder / "plan.yaml").write_text(PLAN.replace("[0]", "[-1]"))
    (folder / "safeguards" / "none.yaml").write_text("kind: none\n")
    checked, faults = check_paths([Path("plan.yaml"), Path("budgets"), Path("safeguards")])
    assert checked == 4
    assert [f"{fault.path}:{fault.line}: {fault.field}" for fault in faults] == [
        "plan.yaml:7: seeds.0",
        "budgets/a.yaml:1: ",
        "budgets/b.yaml:1: attacker",
        "budgets/b.yaml:1: laboratory",
        "budgets/b.yaml:1: stands_for",
        "budgets/b.yaml:1: total_usd",
        "budgets/b.yaml:2: hardware",
    ]


def test_a_folder_is_searched_in_depth(folder: Path) -> None:
    (folder / "deep" / "budgets").mkdir(parents=True)
    (folder / "deep" / "budgets" / "a.yaml").write_text("kind: none\n")
    (folder / "deep" / "plan.yaml").write_text(PLAN)
    checked, faults = check_paths([folder / "deep"])
    assert checked == 2
    assert {fault.field for fault in faults} >= {"kind", "attacker"}


def test_the_folder_of_a_file_is_known_from_inside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "safeguards" / "none.yaml").write_text("kind: none\n")
    monkeypatch.chdir(folder / "safeguards")
    assert check_paths([Path("none.yaml")]) == (1, [])
    assert check_paths([Path(".")]) == (1, [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent: does not exist; name a YAML file or a folder of them"),
        ("evals", "evals: holds no *.yaml file; name a YAML file or a folder of them"),
    ],
)
def test_a_path_that_leads_nowhere(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_paths([Path(name)])
    assert str(caught.value) == message
