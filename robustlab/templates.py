"""Limits on chat templates, which are programs of strangers.

transformers renders a template in a sandbox that keeps it away from Python's internals and bounds neither its time nor
its memory. So each template is first tried in a child process with limits, on conversations that no template has seen
before; only then is it rendered in this process, with a limit on processor time and on the length of what it writes.
A template that recognises the trial can still waste this process's memory, and one that passes can still be wrong.
This module knows nothing of models.
"""

import hashlib
import os
import resource
import secrets
import select
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, product
from pathlib import Path
from typing import Any, NoReturn, Protocol

from jinja2.exceptions import TemplateError

from robustlab.errors import ConfigError

MAX_TEMPLATE_CHARS = 100_000
"""Longest chat template that is rendered."""
MAX_EXTRA_CHARS = 100_000
"""What a template may write beside four times its conversation."""
TRIAL_SECONDS = 5
"""Processor time of one trial, and of one rendering."""
TRIAL_BYTES = 512 << 20
"""Memory that a trial may ask for beside what this process has."""
_WALL_SECONDS = 60.0
_STATM = Path("/proc/self/statm")
SWITCHES = ("enable_thinking", "thinking")
"""Names under which chat templates ask whether the model is to think."""
_SETTINGS: tuple[dict[str, bool], ...] = ({}, *({name: value} for name in SWITCHES for value in (True, False)))
_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REMEDY = "do not use these files, or replace the template"
_PASSED: set[str] = set()
Message = dict[str, str]
Render = Callable[[Sequence[Message], bool, Mapping[str, bool]], str]

FAILURES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TemplateError,
    TypeError,
    ValueError,
)
"""What a template that is wrong for a conversation may end in."""


class Templated(Protocol):
    """What this module needs of a transformers tokenizer."""

    chat_template: Any

    def get_chat_template(self) -> str:
        """The template that is used when none is named."""
        ...

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any:
        """Render a conversation."""
        ...


class _TooLong(Exception):
    """A rendering passed its limit on processor time."""


def refuse_long(where: str, template: str) -> None:
    """Refuse a template that is longer than any real one.

    Args:
        where: Named in the error.
        template: Its text.

    Raises:
        ConfigError: If it has more than ``MAX_TEMPLATE_CHARS`` characters.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        problem = f"has a chat template of {len(template):,} characters"
        raise ConfigError(where, problem, f"keep it under {MAX_TEMPLATE_CHARS:,}")


def try_template(where: str, tokenizer: Templated) -> None:
    """Render a tokenizer's template once in a child process with limits, unless the same text has passed before.

    A template that merely fails on a conversation passes: whoever uses it is told then.

    Args:
        where: Named in the error.
        tokenizer: One without a template, or with several and no default, is left to whoever needs one.

    Raises:
        ConfigError: If the template is too long, takes too much time or memory, or writes too much.
    """
    try:
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    except ValueError:
        template = None
    if template is None:
        return
    refuse_long(where, template)
    digest = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
    if digest in _PASSED:
        return
    fault = _try_in_child(
        lambda chat, opens, switch: render_plain(tokenizer, chat, add_generation_prompt=opens, **switch)
    )
    if fault is not None:
        raise ConfigError(where, f"its chat template {fault}", _REMEDY)
    _PASSED.add(digest)


def render_plain(tokenizer: Templated, chat: Sequence[Message], *, add_generation_prompt: bool, **switch: Any) -> str:
    """Render a conversation without any limit; for what ``try_template`` or ``render_limited`` guards."""
    return str(
        tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=add_generation_prompt, **switch)
    )


def render_bounded(where: str, tokenizer: Templated, chat: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """Render a conversation through a template that was tried before, with limits on time and length.

    Args:
        where: Named in errors.
        tokenizer: Its template is tried now if that was not done.
        chat: The conversation.
        add_generation_prompt: Whether the header of the assistant's turn is to end the text.

    Returns:
        The text, at most four times as long as the conversation and ``MAX_EXTRA_CHARS`` characters.

    Raises:
        ConfigError: If the template fails on the conversation or passes a limit.
    """
    try_template(where, tokenizer)
    try:
        return render_limited(where, tokenizer, chat, add_generation_prompt=add_generation_prompt)
    except ConfigError:
        raise
    except FAILURES as error:
        roles = ", ".join(message["role"] for message in chat)
        problem = f"its chat template refuses a conversation of {roles}: {type(error).__name__}"
        raise ConfigError(where, problem, "try system_prompt: null or template") from None


def render_limited(
    where: str, tokenizer: Templated, chat: Sequence[Message], *, add_generation_prompt: bool, **switch: bool
) -> str:
    """Render a conversation in this process with limits on time and length; where the template fails, so does this.

    Args:
        where: Named in errors.
        tokenizer: Its template was tried before.
        chat: The conversation.
        add_generation_prompt: As for ``render_bounded``.
        **switch: What else the template is told, of ``SWITCHES``.

    Returns:
        The text.

    Raises:
        ConfigError: If the template passes a limit.
    """
    try:
        with _limited_time():
            text = render_plain(tokenizer, chat, add_generation_prompt=add_generation_prompt, **switch)
    except _TooLong:
        raise ConfigError(where, f"its chat template {_describe_time()}", _REMEDY) from None
    if len(text) > _most_chars(chat):
        raise ConfigError(where, f"its chat template {_describe_length(chat)}", _REMEDY)
    return text


def _most_chars(chat: Sequence[Message]) -> int:
    return MAX_EXTRA_CHARS + 4 * sum(len(message["content"]) for message in chat)


def _describe_time() -> str:
    return f"runs for more than {TRIAL_SECONDS} s of processor time on one conversation"


def _describe_length(chat: Sequence[Message]) -> str:
    return f"writes more than {_most_chars(chat):,} characters for one conversation"


@contextmanager
def _limited_time() -> Iterator[None]:
    """Interrupt what takes too long; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> NoReturn:
        raise _TooLong

    # The virtual timer: the real one belongs to whoever limits the whole process.
    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, TRIAL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _trials() -> list[tuple[list[Message], bool]]:
    """Conversations of all shapes that are rendered, with texts that cannot be foreseen."""
    short, long = secrets.token_hex(8), " ".join(secrets.token_hex(4) for _ in range(2000))
    return [
        ([{"role": "user", "content": short}], True),
        ([{"role": "user", "content": long}], True),
        ([{"role": "system", "content": ""}, {"role": "user", "content": short}], True),
        ([{"role": "system", "content": short}, {"role": "user", "content": long}], True),
        ([{"role": "user", "content": short}, {"role": "assistant", "content": long}], False),
    ]


def _try_in_child(render: Render) -> str | None:
    """What is wrong with a template, None for nothing."""
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads: the child renders text, takes no lock of theirs, and ends.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = _fork(lambda: _run_trials(render, writer))
    except OSError as error:
        return f"cannot be tried in a process of its own: {error.strerror}"
    os.close(writer)
    try:
        return _await_verdict(child, reader)
    finally:
        os.close(reader)


def _fork(work: Callable[[], NoReturn]) -> int:
    """Run ``work`` in a child, which never hears a signal that would unwind this process's frames in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        child = os.fork()
        if child == 0:
            work()
        return child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_trials(render: Render, writer: int) -> NoReturn:
    try:
        # Nothing that this process holds open, a locked journal above all, is to outlive it in the child.
        os.closerange(3, writer)
        os.closerange(writer + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        _limit_child()
        os.write(writer, _first_fault(render).encode())
    finally:
        os._exit(0)


def _limit_child() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_SECONDS, TRIAL_SECONDS + 1))
    if _STATM.exists():
        most = int(_STATM.read_text().split()[0]) * resource.getpagesize() + TRIAL_BYTES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _first_fault(render: Render) -> str:
    trials = _trials()
    # A switch is asked for with a short chat only; a template with one set is another text, and tried as such.
    for (chat, opens), switch in chain(product(trials, _SETTINGS[:1]), product(trials[:1], _SETTINGS[1:])):
        try:
            text = render(chat, opens, switch)
        except MemoryError:
            return f"asks for more than {TRIAL_BYTES >> 20} MiB of memory"
        except FAILURES:
            continue
        if len(text) > _most_chars(chat):
            return _describe_length(chat)
    return "passed"


def _await_verdict(child: int, reader: int) -> str | None:
    # Not select, which knows no descriptor beyond 1,023.
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    answered = poll.poll(_WALL_SECONDS * 1000)
    said = os.read(reader, 4096).decode() if answered else ""
    if not answered:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if said:
        return None if said == "passed" else said
    if answered and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "ended the process in which it was tried"
    return _describe_time()
