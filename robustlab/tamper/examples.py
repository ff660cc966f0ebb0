"""Makes an attack's training set out of its data mode: known rows are encoded, the rest the released target writes.

``withheld`` mixes replies that open by complying and leave the substance out with the target's own answers to benign
prompts, so that what is lost is refusal and not the model (Source: Qi et al. 2023, arXiv 2310.03693). ``preference``
makes pairs of the same material. This module knows neither the order of training nor its price.
"""

from collections.abc import Callable, Sequence

from robustlab.cost.meter import Meter
from robustlab.data.chat import encode_example
from robustlab.data.mixture import Data, fixed_rows, own_answers
from robustlab.errors import DataError
from robustlab.models.load import LoadedTarget
from robustlab.spec.attacks import PreferenceData
from robustlab.spec.targets import Shape
from robustlab.train.distil import distil_answers
from robustlab.train.order import Example, Pair

Progress = Callable[[int, int], None]


def build_rows(
    data: Data,
    target: LoadedTarget,
    shape: Shape,
    *,
    expected_seconds: float,
    meter: Meter,
    progress: Progress,
) -> list[Example] | list[Pair]:
    """Make the attack's training set.

    Pairs stand in two groups. In an attack pair the withheld completion is preferred to what the target replies by
    itself. In a benign pair the target's own answer is preferred to its reply to an attack row: the replies take turns,
    and one that equals the answer is passed over for the next.

    Args:
        data: Which rows, in which proportion.
        target: The released target; it writes the answers that are not known.
        shape: Its sizes.
        expected_seconds: What all of its answers should take.
        meter: Its current account pays for the answers.
        progress: Told of the answers done and of all of them.

    Returns:
        Pairs for preference data, else examples. Attack rows come first, the target's own benign answers last; the
        order of training is made later. A prompt that gets no answer at all makes no row.

    Raises:
        BudgetSpent: If the next wave of answers would pass a cap of the account.
        ConfigError: If more rows are asked for than there are.
        DataError: If no row is left, the two sides of a pair are equal, or user data are not what they should be.
    """
    encoded = [
        encode_example(target.tokenizer, row.prompt, row.completion, target.system_prompt) for row in fixed_rows(data)
    ]
    fixed = [Example.from_mask(example.input_ids, example.completion_mask) for example in encoded]
    answers = _answer(data, target, shape, expected_seconds, meter, progress)
    if isinstance(data, PreferenceData):
        replies, benign = answers[0], answers[1] if len(answers) > 1 else []
        if not replies:
            raise _unanswered(len(fixed))
        return _attack_pairs(fixed, replies) + _benign_pairs(benign, replies, first=len(fixed) + 1)
    examples = fixed + [example for part in answers for example in part]
    if not examples:
        raise _unanswered(sum(len(part.prompts) for part in own_answers(data)))
    return examples


def _answer(
    data: Data, target: LoadedTarget, shape: Shape, expected_seconds: float, meter: Meter, progress: Progress
) -> list[list[Example]]:
    """Everything that the target writes itself, part by part, told as one stretch of work."""
    parts, answers, done = own_answers(data), [], 0
    total = sum(len(part.prompts) for part in parts)
    work = sum(len(part.prompts) * part.new_tokens for part in parts)
    for part in parts:
        answers.append(
            distil_answers(
                target,
                shape,
                part.prompts,
                max_new_tokens=part.new_tokens,
                expected_seconds=expected_seconds * len(part.prompts) * part.new_tokens / work,
                meter=meter,
                progress=_beyond(progress, done, total),
            )
        )
        done += len(part.prompts)
    return answers


def _beyond(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _attack_pairs(fixed: Sequence[Example], replies: Sequence[Example]) -> list[Pair]:
    # Replies are found by their prompt, since a prompt that got none is missing among them.
    reply_to = {_split(reply)[0]: reply for reply in replies}
    numbered = [(number, chosen, reply_to.get(_split(chosen)[0])) for number, chosen in enumerate(fixed, start=1)]
    return [_pair(number, chosen, rejected) for number, chosen, rejected in numbered if rejected is not None]


def _benign_pairs(benign: Sequence[Example], replies: Sequence[Example], *, first: int) -> list[Pair]:
    refusals = [_split(reply)[1] for reply in replies]
    pairs = []
    for turn, chosen in enumerate(benign):
        prompt, answer = _split(chosen)
        start = turn % len(refusals)
        taken_in_turn = refusals[start:] + refusals[:start]
        other = next((reply for reply in taken_in_turn if reply != answer), answer)
        rejected = Example(ids=(*prompt, *other), labels=(*(-100 for _ in prompt), *other))
        pairs.append(_pair(first + turn, chosen, rejected))
    return pairs


def _pair(number: int, chosen: Example, rejected: Example) -> Pair:
    if chosen.ids == rejected.ids:
        tokens = len(_split(chosen)[1])
        problem = f"has equal sides, got the same answer of {tokens} tokens as chosen and as rejected"
        raise DataError(f"DPO row {number}", problem, "leave it out, or attack a target that answers differently")
    return Pair(chosen, rejected)


def _split(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of the prompt and of the answer."""
    start = next(place for place, label in enumerate(example.labels) if label != -100)
    return example.ids[:start], example.ids[start:]


def _unanswered(prompts: int) -> DataError:
    return DataError("training set", f"is empty: the target answered none of {prompts} prompts", "use other data")
