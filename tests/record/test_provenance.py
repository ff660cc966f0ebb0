"""Versions come from metadata alone, and the process closes what it makes."""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import robustlab
from robustlab.record import provenance
from robustlab.record.provenance import collect_versions, source_fingerprint


def test_versions_name_software_and_machine() -> None:
    versions = collect_versions(threads=2)
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert versions["robustlab"] == robustlab.__version__
    assert (versions["threads"], versions["cores"]) == ("2", str(os.cpu_count()))
    assert versions["device"] == "cpu"
    assert collect_versions(threads=2, device="NVIDIA H100")["device"] == "NVIDIA H100"
    assert {"torch", "transformers", "pydantic", "os", "processor"} <= versions.keys()
    assert all(isinstance(value, str) and value for value in versions.values())
    assert not any("commit" in key for key in versions)


def test_a_library_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LIBRARIES", ("pydantic", "no-such-library"))
    assert "no-such-library" not in collect_versions(threads=1)


def test_the_processor_is_the_first_model_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Example 9000\nmodel name\t: Other\n", encoding="utf-8")
    monkeypatch.setattr(provenance, "_CPUINFO", cpuinfo)
    assert collect_versions(threads=1)["processor"] == "Example 9000"
    monkeypatch.setattr(provenance, "_CPUINFO", tmp_path / "none")
    assert collect_versions(threads=1)["processor"]


def test_a_fingerprint_changes_with_any_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for number, source in enumerate(["A = 1\n", "A = 2\n"]):
        (tmp_path / f"sample_{number}.py").write_text(source, encoding="utf-8")
        found.append(source_fingerprint(provenance, importlib.import_module(f"sample_{number}")))
    expected = hashlib.sha256()
    for name, source in (
        ("robustlab.record.provenance", Path(provenance.__file__).read_text()),
        ("sample_0", "A = 1\n"),
    ):
        expected.update(f"{name}\n{source}\0".encode())
    assert found[0] == expected.hexdigest()
    assert found[1] != found[0]


def test_no_library_is_imported_for_its_version() -> None:
    code = (
        "import sys; from robustlab.record.provenance import collect_versions; collect_versions(threads=1);"
        "print([name for name in ('torch', 'transformers', 'trl', 'numpy', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_harden_process() -> None:
    code = (
        "import os, resource; from robustlab.record.provenance import harden_process; harden_process();"
        "print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0o77 (0, 0)\n"
