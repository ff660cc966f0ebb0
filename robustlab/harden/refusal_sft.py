"""``refusal_sft``: low-rank fine-tuning on refusals of improper requests and on the target's own benign answers.

Source: the usual safety fine-tuning, as in Bianchi et al. 2023, arXiv 2309.07875.
"""

from robustlab.harden.rows import build_example, draw_reply, load_completions, refused_requests
from robustlab.models.load import LoadedTarget
from robustlab.spec.safeguards import RefusalData
from robustlab.train.order import Example


def build_refusals(spec: RefusalData, target: LoadedTarget) -> list[Example]:
    """Every improper request with a refusal: the mild ones, repeated, then those of the install source, repeated.

    Args:
        spec: Which requests, how often.
        target: Its tokenizer and system prompt.

    Returns:
        One example a request, with its loss on the refusal.
    """
    replies = load_completions("refusals")
    return [
        build_example(target, request, draw_reply(request, time, replies))
        for time, request in enumerate(refused_requests(spec))
    ]
