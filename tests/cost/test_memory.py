from dataclasses import replace
from typing import Any

import pytest

from robustlab.cost.job import Prompts
from robustlab.cost.memory import needed_bytes


def test_memory_by_hand(build_job: Any) -> None:
    # weights 480 + adapter 1056 x 16 = 17,376
    # training: widths 8 x 8 + 2 x (3 + 1) x 5 + 4 x 12 = 152
    # 4 x 20 tokens x (2 layers x 152 x 4 bytes + 10 x 12) = 106,880
    # and what the libraries hold on a processor: 0.3, 0.55 and 0.8 GB
    assert needed_bytes(build_job()) == (300_017_376, 550_017_376 + 106_880, 800_186_384)


def test_on_an_accelerator_the_libraries_lie_elsewhere(build_job: Any) -> None:
    job = build_job()
    there = replace(job, hardware=job.hardware.model_copy(update={"kind": "gpu"}))
    assert needed_bytes(there) == (17_376, 17_376 + 106_880, 186_384)


def test_long_generations_need_a_cache(build_job: Any) -> None:
    # A wave of 24,576 tokens holds 2 of the 4 rows: each (10,000 + 8) x 2 x 2 layers x 5 x 4 bytes + 120.
    # On a processor the 480 bytes of weights are laid out once more.
    job = build_job()
    long = replace(job, counts=replace(job.counts, evals={"mild": Prompts(6, 10_000)}))
    assert needed_bytes(long)[1] == 550_017_376 + 2 * (10_008 * 80 + 120) + 480
    there = replace(long, hardware=long.hardware.model_copy(update={"kind": "gpu"}))
    assert needed_bytes(there)[1] == 17_376 + 2 * (10_008 * 80 + 120)


def test_only_weights_of_a_gigabyte_or_less_are_laid_out_again(build_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    long = replace(build_job(), counts=replace(build_job().counts, evals={"mild": Prompts(6, 10_000)}))
    monkeypatch.setattr("robustlab.cost.memory.PACKED_BYTES", 479)
    assert needed_bytes(long)[1] == 550_017_376 + 2 * (10_008 * 80 + 120)
