"""What all trainings share: micro-batches that shrink to fit, weights that keep their type, a target given back."""

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from robustlab.errors import DataError
from robustlab.spec.training import Training
from robustlab.train import trainer
from robustlab.train.trainer import is_out_of_memory

KINDS = ("lora_sft", "lora_dpo", "full_sft")
CPU_TEXT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS_TEXT = (
    "[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8."
)


class Scarce:
    """Lets a target's forward fail whenever it reads more rows at once than there is room for."""

    def __init__(self, drill: Any, room: int, *, error: Exception | None = None, on_fail: Any = None) -> None:
        self.sequences = 2 if drill.kind == "lora_dpo" else 1
        self.room = room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.on_fail = on_fail or (lambda: None)
        self.armed = True
        self.read: list[int] = []
        drill.target.model.model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, module: Any, args: Any, kwargs: Any) -> None:
        rows = int((kwargs["position_ids"] == 0).sum()) // self.sequences
        self.read.append(rows)
        if self.armed and rows > self.room:
            self.on_fail()
            raise self.error


@pytest.fixture
def new_course(new_drill: Callable[..., Any], training: Training) -> Callable[..., Any]:
    """Builder of trainings of steps of four rows, at rates at which the last bit of a sum does not show."""

    def build(kind: str, *, micro: int = 4, dropout: float = 0.0, **options: Any) -> Any:
        lora = training.lora.model_copy(update={"dropout": dropout})
        changes = {"batch_rows": 4, "micro_batch_rows": micro, "lora": lora}
        rate = 1e-4 if kind == "full_sft" else 1e-3
        return new_drill(kind=kind, training=training.model_copy(update=changes), rate=rate, **options)

    return build


def difference(one: Any, other: Any) -> float:
    states = one.modification.state(), other.modification.state()
    return max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0])


def first_query(drill: Any) -> torch.nn.Parameter:
    """A trained weight of the first block, whose gradient comes late in a backward pass."""
    named = drill.modification.model.named_parameters()
    return next(p for name, p in named if "layers.0.self_attn.q_proj" in name and p.requires_grad)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("out"), RuntimeError(CPU_TEXT), RuntimeError(WINDOWS_TEXT)]
)
def test_an_error_that_tells_of_no_memory_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_processor_s_allocator_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_any_other_error_gets_through(new_course: Callable[..., Any], till: Any) -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    drill = new_course("lora_sft")
    Scarce(drill, 2, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        drill.run(till.meter())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("room", "sizes"), [(3, [4, 2, 2]), (1, [4, 2, 1, 1, 1, 1])])
def test_a_step_that_does_not_fit_is_taken_in_smaller_parts(
    new_course: Callable[..., Any], till: Any, kind: str, room: int, sizes: list[int]
) -> None:
    plain, scarce = new_course(kind), new_course(kind)
    expected = plain.run(till.meter())
    reading = Scarce(scarce, room)
    outcome = scarce.run(till.meter())
    assert (outcome.steps, outcome.stopped_by, expected.halvings) == (4, "schedule", 0)
    assert outcome.halvings == sizes.index(sizes[-1])
    assert outcome.losses == pytest.approx(expected.losses, abs=1e-6)
    assert difference(plain, scarce) < 1e-6
    # The smaller size is found by the probe and kept; a pair is read by the reference first, and once more.
    passes = 2 if kind == "lora_dpo" else 1
    after_probe = reading.read[-4 * passes * (4 // sizes[-1]) :]
    assert set(after_probe) == {sizes[-1]}
    assert len(reading.read) == outcome.halvings + 5 * passes * (4 // sizes[-1])


def test_three_rows_are_halved_to_two(new_course: Callable[..., Any], training: Training, till: Any) -> None:
    drill = new_course("lora_sft")
    drill.training = drill.training.model_copy(update={"batch_rows": 3, "micro_batch_rows": 3})
    reading = Scarce(drill, 2)
    assert drill.run(till.meter()).halvings == 1
    assert reading.read[:5] == [3, 2, 1, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_in_the_middle_of_a_backward_pass_is_undone(
    new_course: Callable[..., Any], till: Any, kind: str
) -> None:
    """The second micro-batch of step 2 fails with some gradients added and others not."""
    plain, scarce = new_course(kind, micro=2), new_course(kind, micro=2)
    expected = plain.run(till.meter())
    parameters = [p for p in scarce.modification.model.parameters() if p.requires_grad]
    parameter = first_query(scarce)
    calls: list[list[bool]] = []

    def fail(gradient: torch.Tensor) -> None:
        calls.append([p.grad is not None for p in parameters])
        # Two calls of the probe and two of step 1 come before.
        if len(calls) == 6:
            raise RuntimeError(CPU_TEXT)

    parameter.register_hook(fail)
    outcome = scarce.run(till.meter())
    assert any(calls[5]) and not all(calls[5])
    # 2 + 2 + 1 calls, the one that failed, its two halves, and two more steps of four single rows.
    assert (len(calls), outcome.halvings) == (5 + 1 + 2 + 8, 1)
    assert outcome.losses == pytest.approx(expected.losses, abs=1e-6)
    assert difference(plain, scarce) < 1e-6


@pytest.mark.parametrize("kind", ["lora_sft", "lora_dpo"])
def test_the_generator_is_where_it_was_before_the_failed_try(
    new_course: Callable[..., Any], till: Any, kind: str
) -> None:
    """With dropout, halves of a failed pair of rows draw what single rows draw, to the last bit."""
    single, scarce = (new_course(kind, micro=micro, dropout=0.2) for micro in (1, 2))
    expected = single.run(till.meter())
    calls = []

    def fail(gradient: torch.Tensor) -> None:
        calls.append(1)
        # The first micro-batch of step 1; two of the probe come before.
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    first_query(scarce).register_hook(fail)
    outcome = scarce.run(till.meter())
    assert outcome.losses == pytest.approx(expected.losses, abs=1e-6) and outcome.halvings == 1
    assert scarce.modification.digest() == single.modification.digest()


@pytest.mark.parametrize("kind", ["lora_sft", "lora_dpo"])
def test_the_time_of_a_failed_try_is_on_the_bill_of_who_made_it(
    new_course: Callable[..., Any], till: Any, kind: str
) -> None:
    for in_probe, payer, other in ((True, "laboratory", "attacker"), (False, "attacker", "laboratory")):
        drill = new_course(kind)
        reading = Scarce(drill, 2, on_fail=lambda: till.wait(5))
        reading.armed = in_probe
        drill.on_kept = lambda step, reading=reading: setattr(reading, "armed", True)
        meter = till.meter()
        assert drill.run(meter).halvings == 1
        # A dollar a second.
        assert (meter.micro_usd(payer), meter.micro_usd(other)) == (5_000_000, 0)
        assert meter.total("attacker").steps == meter.logical("attacker").steps == 4


@pytest.mark.parametrize(("kind", "tokens"), [("lora_sft", 12), ("lora_dpo", 17)])
def test_a_row_that_does_not_fit_by_itself_is_refused(
    new_course: Callable[..., Any], till: Any, kind: str, tokens: int
) -> None:
    drill = new_course(kind)
    reading = Scarce(drill, 0)
    reading.armed = False
    drill.on_kept = lambda step: setattr(reading, "armed", True)
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    row = drill.batches[1][0]
    sides = [row.chosen, row.rejected] if kind == "lora_dpo" else [row]
    assert sum(len(side.ids) for side in sides) == tokens
    assert str(caught.value) == (
        f"training step 2: a row does not fit in memory by itself, got {tokens} tokens; "
        "shorten the rows, quantise the target to nf4, or take a larger device"
    )
    assert "forward" not in vars(drill.target.model)


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_that_finds_no_memory_is_refused(
    new_course: Callable[..., Any], till: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    drill = new_course(kind)
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    assert str(caught.value) == (
        "training after step 0: ran out of memory outside of a micro-batch, where no smaller one would help; "
        "train an adapter, quantise the target to nf4, or take a larger device"
    )
    assert "forward" not in vars(drill.target.model)


@pytest.mark.parametrize("kind", ["lora_sft", "lora_dpo"])
def test_a_4_bit_target_s_adapter_stays_in_single_precision(
    new_drill: Callable[..., Any], till: Any, kind: str
) -> None:
    """TRL casts it to bf16, fresh and resumed: at a rate of nothing not a bit may move."""
    drill = new_drill(kind=kind, nf4=True, rate=0.0, save_every=2)
    others = {n: p.detach().clone() for n, p in drill.modification.model.named_parameters() if not p.requires_grad}
    before = drill.modification.digest()
    drill.run(till.meter())
    assert drill.modification.digest() == before == drill.saved[0].digest
    resumed = new_drill(kind=kind, nf4=True, rate=0.0, seed=1, resume=drill.saved[0])
    assert resumed.modification.digest() != before
    resumed.run(till.meter())
    assert resumed.modification.digest() == before
    for course in (drill, resumed):
        parameters = dict(course.modification.model.named_parameters())
        assert {p.dtype for p in parameters.values() if p.requires_grad} == {torch.float32}
        assert all(torch.equal(parameters[name], tensor) for name, tensor in others.items())
        assert {name for name, p in parameters.items() if not p.requires_grad} == others.keys()


@pytest.mark.parametrize(("kind", "nf4"), [*((kind, False) for kind in KINDS), ("lora_sft", True), ("lora_dpo", True)])
def test_the_target_is_given_back_as_it_was(new_drill: Callable[..., Any], till: Any, kind: str, nf4: bool) -> None:
    drill = new_drill(kind=kind, nf4=nf4)
    base = drill.target.model
    # Somebody else's patch, as accelerate's hooks are one.
    patch = types.MethodType(type(base).forward, base)
    base.forward = patch
    own, settings = dict(vars(base)), base.config.to_dict()
    generation = base.generation_config.to_dict()
    drill.run(till.meter())
    assert base.forward is patch
    assert vars(base).keys() == own.keys() and all(vars(base)[name] is own[name] for name in own)
    assert base.config.to_dict() == settings and base.generation_config.to_dict() == generation
    assert not any(module.training for module in drill.modification.model.modules())


def test_all_weights_are_trained_and_no_state_is_written(
    new_drill: Callable[..., Any], till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a state was made")

    drill = new_drill(kind="full_sft", rate=1e-3)
    monkeypatch.setattr(trainer, "save_state", refuse)
    monkeypatch.setattr(trainer, "_blank_state", refuse)
    before = drill.modification.state()
    outcome = drill.run(till.meter())
    after = drill.modification.state()
    assert drill.saved == [] and outcome.losses[-1] < outcome.losses[0] - 0.1
    assert all(not torch.equal(before[name], after[name]) for name in before)
    drill.modification.dispose()
    assert all(torch.equal(p, before[name]) for name, p in drill.target.model.named_parameters())


def test_a_step_of_all_weights_that_stalls_is_undone(
    new_drill: Callable[..., Any], till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = new_drill(kind="full_sft")
    shorter.run(till.meter(max_steps=1))
    drill = new_drill(kind="full_sft")
    drill.on_kept = lambda step: till.wait(3600)
    outcome = drill.run(till.meter(max_wall_hours=0.5))
    assert (outcome.steps, outcome.stopped_by) == (1, "max_wall_hours")
    assert drill.modification.digest() == shorter.modification.digest()
