"""The refusal direction: read off the residual stream as a difference of means, and projected out by hooks.

A hook behind the embedding, every attention and every feed-forward block takes the direction out of all that is written
to the residual stream, which is what orthogonalising their weights does, without touching a weight. Prompts are read in
batches that depend on the prompts alone, padded on the right: no token sees what comes after it.
This module does not choose a direction and does not bill.

Source: Arditi et al. 2024, arXiv 2406.11717.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from robustlab.errors import ConfigError, DataError
from robustlab.models.modification import tensors_digest
from robustlab.models.waves import plan_waves

_DIRECTION = "direction"


class AblationModification:
    """A direction that is projected out of the residual stream; without one nothing changes, byte for byte."""

    def __init__(self, base: PreTrainedModel) -> None:
        """Find where a target writes to its residual stream; no direction is taken out yet.

        Args:
            base: The target; it stays resident, and no weight of it is ever touched.

        Raises:
            ConfigError: If its layers have no ``self_attn`` and ``mlp``.
        """
        self._base = base
        self._writers = [base.get_input_embeddings()]
        self._writers += [getattr(layer, name) for layer in find_layers(base) for name in ("self_attn", "mlp")]
        self._direction_D: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    @property
    def model(self) -> torch.nn.Module:
        """The module to run forward."""
        return self._base

    @property
    def base(self) -> PreTrainedModel:
        """The same module: nothing is wrapped around the target."""
        return self._base

    def set_direction(self, direction_D: Tensor) -> None:
        """Project a direction out from now on, in the place of what was projected out before.

        Args:
            direction_D: Any multiple of it, one number for each dimension of the residual stream.

        Raises:
            DataError: If it has another shape, is zero or is not finite.
        """
        width = self._base.config.hidden_size
        if direction_D.shape != (width,):
            problem = f"must have shape ({width},), got {tuple(direction_D.shape)}"
            raise DataError("direction", problem, "take it from the residual stream of this target")
        if not is_direction(direction_D):
            problem = f"must have a finite length above 0, got {float(direction_D.double().norm())}"
            raise DataError("direction", problem, "read prompts that differ")
        wide_D = direction_D.detach().double()
        self.load_state({_DIRECTION: (wide_D / wide_D.norm()).float()})

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """A context in which the target is untouched, byte for byte."""
        was_on = bool(self._handles)
        self._take_off()
        try:
            yield
        finally:
            if was_on:
                self._put_on()

    def digest(self) -> str:
        """sha256 over shape and bytes of the direction, or over nothing."""
        return tensors_digest(self.state())

    def state(self) -> dict[str, Tensor]:
        """A copy of the unit direction under ``direction``; empty where there is none."""
        return {} if self._direction_D is None else {_DIRECTION: self._direction_D.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a direction back that ``state`` gave, or none."""
        self._take_off()
        found = state.get(_DIRECTION)
        self._direction_D = None if found is None else found.to(self._base.device, copy=True)
        if found is not None:
            self._put_on()

    def dispose(self) -> None:
        """Take the hooks off the target for good; it is as it was."""
        self.load_state({})

    def _put_on(self) -> None:
        self._handles = [writer.register_forward_hook(self._project) for writer in self._writers]

    def _take_off(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _project(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # Attention returns its weights too; the others return what they write and nothing else.
        written = output[0] if isinstance(output, tuple) else output
        kept = project_out(written, self._direction_D) if self._direction_D is not None else written
        return (kept, *output[1:]) if isinstance(output, tuple) else kept


def is_direction(direction_D: Tensor) -> bool:
    """Whether a vector has a finite length above 0."""
    return 0 < float(direction_D.double().norm()) < math.inf


def project_out(written: Tensor, direction_D: Tensor) -> Tensor:
    """Take a unit direction out of vectors: x - (x . r) r, in fp32 at least.

    Args:
        written: Vectors along the last axis, which has D dimensions.
        direction_D: The direction, of length 1.

    Returns:
        What is left, in the type of ``written``.
    """
    wide = written.float()
    return (wide - (wide @ direction_D)[..., None] * direction_D).to(written.dtype)


def find_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The decoder layers of a Llama-like model.

    Args:
        model: The target.

    Returns:
        All of them, first to last.

    Raises:
        ConfigError: If there are none, or one has no ``self_attn`` or no ``mlp``.
    """
    layers = list(getattr(model.base_model, "layers", []))
    if not layers or not all(hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in layers):
        problem = f"needs a target whose layers have self_attn and mlp, got {type(model).__name__}"
        raise ConfigError("attack of kind ablation", problem, "use another target or another attack")
    return layers


def choose_layers(depths: Sequence[float], layers: int) -> tuple[int, ...]:
    """After how many layers the residual stream is read.

    Args:
        depths: Shares of the depth, in [0, 1].
        layers: Layers of the target.

    Returns:
        The nearest number of layers for each share (half up, at least 1), each once, smallest first. Before the first
        layer all prompts of a chat end alike, so that nothing could be read there.
    """
    return tuple(sorted({max(1, math.floor(depth * layers + 0.5)) for depth in depths}))


@torch.no_grad()
def mean_residuals(model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, batch_rows: int, pad_id: int) -> Tensor:
    """Mean of the residual stream at the last token of each prompt, behind every layer.

    Args:
        model: In eval mode.
        prompts: Token ids, the generation prompt included; at least one prompt.
        batch_rows: Rows that are read together.
        pad_id: Filler to the right of shorter prompts.

    Returns:
        means_L_D in fp64 on the processor; row k is the stream after k + 1 layers, before the last norm.

    Raises:
        ConfigError: As ``find_layers``.
    """
    layers, total_L_D = find_layers(model), torch.zeros(1)
    for ids_B_T, last_B in _batches(model, prompts, batch_rows, pad_id):
        with _watching(layers) as streams:
            model.base_model(input_ids=ids_B_T, use_cache=False)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        total_L_D = total_L_D + torch.stack([stream[rows_B, last_B].double().sum(0).cpu() for stream in streams])
    return total_L_D / len(prompts)


@torch.no_grad()
def mean_refusal(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[int],
    *,
    batch_rows: int,
    pad_id: int,
) -> float:
    """Mean log-odds that the answers to prompts begin as refusals do.

    Args:
        model: In eval mode, with whatever modification is on it.
        prompts: Token ids, the generation prompt included; at least one prompt.
        token_ids: First tokens of refusals.
        batch_rows: Rows that are read together.
        pad_id: Filler to the right of shorter prompts.

    Returns:
        Nats; the higher, the likelier a refusal. Not finite where a logit is not.

    Source: Arditi et al. 2024, arXiv 2406.11717, appendix B.
    """
    total = 0.0
    for ids_B_T, last_B in _batches(model, prompts, batch_rows, pad_id):
        total += float(refusal_log_odds(_logits_at(model, ids_B_T, last_B), token_ids).sum())
    return total / len(prompts)


@torch.no_grad()
def read_next_tokens(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, batch_rows: int, pad_id: int
) -> Tensor:
    """Log-probabilities of the next token after each prompt.

    Args:
        model: In eval mode, with whatever modification is on it.
        prompts: Token ids, the generation prompt included; at least one prompt.
        batch_rows: Rows that are read together.
        pad_id: Filler to the right of shorter prompts.

    Returns:
        log_probs_B_V in nats, fp32 on the processor, in the order in which batches are planned.
    """
    found = []
    for ids_B_T, last_B in _batches(model, prompts, batch_rows, pad_id):
        logits_B_V = _logits_at(model, ids_B_T, last_B)
        found.append(logits_B_V.float().log_softmax(-1).cpu())
    return torch.cat(found)


def _logits_at(model: PreTrainedModel, ids_B_T: Tensor, last_B: Tensor) -> Tensor:
    places_U, place_B = torch.unique(last_B, return_inverse=True)
    logits_B_U_V: Tensor = model(input_ids=ids_B_T, use_cache=False, logits_to_keep=places_U).logits
    return logits_B_U_V[torch.arange(len(last_B), device=last_B.device), place_B]


def refusal_log_odds(logits_B_V: Tensor, token_ids: Sequence[int]) -> Tensor:
    """Log-odds of the next token being one of some: log P(them) - log P(all others).

    Args:
        logits_B_V: Logits of the next token.
        token_ids: At least one token, and not all of them.

    Returns:
        log_odds_B in nats, fp64.
    """
    among_V = torch.zeros(logits_B_V.shape[-1], dtype=torch.bool, device=logits_B_V.device)
    among_V[list(token_ids)] = True
    wide_B_V = logits_B_V.double()
    return wide_B_V[:, among_V].logsumexp(-1) - wide_B_V[:, ~among_V].logsumexp(-1)


def _batches(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], batch_rows: int, pad_id: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """ids_B_T and last_B, the place of the last token of every row."""
    for wave in plan_waves(prompts, batch_rows):
        chosen = [prompts[row] for row in wave.rows]
        width = max(map(len, chosen))
        ids = [[*prompt, *[pad_id] * (width - len(prompt))] for prompt in chosen]
        last = [len(prompt) - 1 for prompt in chosen]
        yield torch.tensor(ids, device=model.device), torch.tensor(last, device=model.device)


@contextmanager
def _watching(layers: Sequence[torch.nn.Module]) -> Iterator[list[Tensor]]:
    """A list that fills with what each layer hands on."""
    streams: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        streams.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield streams
    finally:
        for handle in handles:
            handle.remove()
