"""Lengths of everything that a cell reads, counted in the target's own tokens, once, and cached by content.

``plan`` prices with these counts and loads no tokenizer. Where nothing was counted yet a rule of thumb stands in, and
the result says so.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from robustlab.cost.job import Completions, Prompts, TokenCounts
from robustlab.data.chat import Tokenizer, encode_example, encode_prompt
from robustlab.data.mixture import attack_rows, benign_prompts
from robustlab.data.rows import EvalRow
from robustlab.record.run_folder import write_json
from robustlab.spec.attacks import LoraSft
from robustlab.spec.base import content_hash
from robustlab.spec.targets import Target

BYTES_PER_TOKEN, TEMPLATE_TOKENS = 4, 30
DISTIL_BATCH_ROWS = 50
Texts = Sequence[tuple[str, str | None]]


class Counter:
    """Counts tokens for one target. ``exact`` turns False as soon as the rule of thumb had to stand in."""

    def __init__(self, target: Target, tokenizer: Tokenizer | None, cache: Path) -> None:
        """Set the counter up.

        Args:
            target: Its system prompt and identity.
            tokenizer: None to use cached counts and the rule of thumb only.
            cache: Root of the cache.
        """
        self._target = target
        self._tokenizer = tokenizer
        self._cache = cache / "counts"
        self.exact = True

    def count(self, recipe: LoraSft, rows: Mapping[str, Sequence[EvalRow]]) -> TokenCounts:
        """Count everything that a cell reads.

        Args:
            recipe: Its training data are counted; a benign answer counts at its full length, for it is not written yet.
            rows: Rows of each eval, by the eval's id.

        Returns:
            Lengths in tokens with the chat template, of the training rows and of each eval's prompts.
        """
        data = recipe.data
        attack = self.lengths([(row.prompt, row.completion) for row in attack_rows(data)])
        asked = self.lengths([(prompt, None) for prompt in benign_prompts(data)])
        answered = [length + data.benign_new_tokens for length in asked]
        examples = attack + answered
        return TokenCounts(
            shortest_row=min([*attack, *(length + 1 for length in asked)]),
            mean_row=math.ceil(sum(examples) / len(examples)),
            longest_row=max(examples),
            distilled=Completions(_prompts(asked), data.benign_new_tokens, DISTIL_BATCH_ROWS) if asked else None,
            evals={name: _prompts(self.lengths([(row.prompt, None) for row in rows[name]])) for name in rows},
        )

    def lengths(self, texts: Texts) -> list[int]:
        """Length in tokens of each prompt, or of each prompt with its completion."""
        identity = {"target": self._target.model_dump(mode="json"), "texts": [list(text) for text in texts]}
        path = self._cache / f"{content_hash(identity)}.json"
        if path.is_file():
            cached: list[int] = json.loads(path.read_text(encoding="utf-8"))
            return cached
        if self._tokenizer is None:
            self.exact = False
            return [approximate_tokens(*text) for text in texts]
        counted = [self._length(self._tokenizer, *text) for text in texts]
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(path, counted)
        return counted

    def _length(self, tokenizer: Tokenizer, prompt: str, completion: str | None) -> int:
        system = self._target.system_prompt
        if completion is None:
            return len(encode_prompt(tokenizer, prompt, system))
        return len(encode_example(tokenizer, prompt, completion, system).input_ids)


def _prompts(lengths: Sequence[int]) -> Prompts:
    return Prompts(len(lengths), math.ceil(sum(lengths) / len(lengths)) if lengths else 0)


def approximate_tokens(prompt: str, completion: str | None) -> int:
    """Length of a prompt, or of one with its completion, by a rule of thumb: four bytes a token, and the template's."""
    return TEMPLATE_TOKENS + len(f"{prompt}{completion or ''}".encode()) // BYTES_PER_TOKEN
