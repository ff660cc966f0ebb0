"""Ids are found in the working folder first, then in the package, and the nearest one is suggested."""

from pathlib import Path

import pytest

import robustlab
from robustlab.errors import ConfigError, InvalidFile
from robustlab.spec.catalog import KINDS, Entry, find, list_entries, load, locate, package_root, schema_of
from robustlab.spec.safeguards import NoSafeguard


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with an empty budgets/ in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "budgets").mkdir()
    return tmp_path


def test_the_working_folder_hides_the_package(folder: Path) -> None:
    (folder / "budgets" / "smoke.yaml").write_text("# Mine\nkind: budget\n")
    (folder / "budgets" / "own.yaml").write_text("kind: budget\n")
    (folder / "budgets" / "notes.txt").write_text("not a budget")
    entries = {entry.id: entry for entry in list_entries("budgets")}
    assert list(entries) == sorted(entries)
    assert (entries["smoke"].origin, entries["smoke"].summary) == ("folder", "Mine")
    assert (entries["own"].origin, entries["own"].summary) == ("folder", "")
    assert entries["laptop"].origin == "package"
    assert "notes" not in entries


def test_faults_name_a_file_of_the_working_folder_as_a_person_would(folder: Path) -> None:
    (folder / "budgets" / "smoke.yaml").write_text("# Mine\nkind: budgt\n")
    with pytest.raises(InvalidFile) as caught:
        load("budgets", "smoke")
    assert "budgets/smoke.yaml:2: kind: must be 'budget', got \"budgt\"" in str(caught.value).splitlines()


def test_an_id_of_the_package_is_read_from_anywhere(folder: Path) -> None:
    assert load("safeguards", "none") == NoSafeguard(kind="none")
    assert find("targets", "tiny").path == package_root() / "targets" / "tiny.yaml"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("targets", "tinny", "target 'tinny': is not in targets/; did you mean 'tiny'?"),
        ("budgets", "labtop", "budget 'labtop': is not in budgets/; did you mean 'laptop'?"),
        ("evals", "q", "eval 'q': is not in evals/; `robustlab list evals` shows what there is"),
        ("attacks", "../targets/tiny", "attack '../targets/tiny': is not in attacks/; "),
        ("attacks", "", "attack '': is not in attacks/; `robustlab list attacks` shows what there is"),
    ],
)
def test_an_unknown_id_gets_the_nearest_one(kind: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(kind, name)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_a_summary_of_a_file_in_another_encoding_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"# Caf\xe9\n")
    assert Entry("x", path, "folder").summary == "Caf\ufffd"


def test_the_installed_package_carries_the_catalogue_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_root() == Path(robustlab.__file__).parent.parent
    monkeypatch.setattr(robustlab, "__file__", str(tmp_path / "robustlab" / "__init__.py"))
    assert package_root() == tmp_path / "robustlab" / "catalog"


def test_every_kind_has_a_schema() -> None:
    assert KINDS == ("targets", "safeguards", "attacks", "budgets", "evals")
    for kind in (*KINDS, "plan"):
        assert schema_of(kind).json_schema()  # type: ignore[arg-type]


PLACED = """\
# Mine
kind: budget
stands_for: A stranger
hardware: cpu
attacker: {max_steps: 3,
  max_usd: 1}
laboratory:
  max_usd: 2
total_usd: null
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ((), 2),
        (("hardware",), 4),
        (("attacker",), 5),
        (("attacker", "max_steps"), 5),
        (("attacker", "max_usd"), 6),
        (("laboratory", "max_usd"), 8),
        (("laboratory", "max_wall_hours"), 7),
        (("total_usd",), 9),
        (("total_usd", "deeper"), 9),
        (("details",), 2),
    ],
)
def test_a_place_is_the_line_of_the_key_or_of_the_block_that_lacks_it(
    folder: Path, field: tuple[str, ...], line: int
) -> None:
    (folder / "budgets" / "own.yaml").write_text(PLACED)
    assert locate("budgets", "own", *field) == f"budgets/own.yaml:{line}"


def test_a_place_in_the_package_is_named_whole_from_another_folder(folder: Path) -> None:
    path = package_root() / "budgets" / "laptop.yaml"
    assert locate("budgets", "laptop", "attacker", "max_usd") == f"{path}:8"


def test_a_place_in_no_file_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^budget 'labtop': is not in budgets/; did you mean 'laptop'\?$"):
        locate("budgets", "labtop", "hardware")
    (folder / "budgets" / "own.yaml").write_text("a: [")
    with pytest.raises(InvalidFile, match=r"^budgets/own\.yaml:1: is not YAML"):
        locate("budgets", "own", "hardware")
