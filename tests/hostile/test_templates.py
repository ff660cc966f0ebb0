"""Chat templates that loop, allocate, reach for Python or differ from row to row: refused, and the process goes on."""

import os
import resource
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from robustlab import templates
from robustlab.data.chat import encode_prompt
from robustlab.errors import ConfigError
from robustlab.models.reasoning import set_switch
from robustlab.models.tiny import CHAT_TEMPLATE, build_tiny_tokenizer
from robustlab.templates import TRIAL_BYTES, render_bounded, try_template
from tests.hostile.conftest import Room

CHAT = [{"role": "user", "content": "Hi"}]
TIME = "target t: its chat template runs for more than 1 s of processor time on one conversation"
MEMORY = f"target t: its chat template asks for more than {TRIAL_BYTES >> 20} MiB of memory"
LENGTH = r"target t: its chat template writes more than \d+(,\d{3})* characters for one conversation"
REMEDY = "; do not use these files, or replace the template"
GREEDY = {
    "loops in loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", TIME),
    "a loop over powers": ("{% for a in range(9999) %}{% set x = 9 ** (99999 + a) %}{% endfor %}", TIME),
    "one power": ("{{ 10 ** (10 ** 10) }}", TIME),
    "a text of 10 GB": ("{{ 'a' * 10 ** 10 }}", MEMORY),
    "a list of 10^9": ("{{ [0] * 10 ** 9 }}", MEMORY),
    "a width in a format": ("{{ '%01000000000d' % 1 }}", MEMORY),
    "a width in a method": ("{{ 'a'.rjust(10 ** 10) }}", MEMORY),
    "a filter that pads": ("{{ 'a' | center(10 ** 10) }}", MEMORY),
    "a list that grows": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
        MEMORY,
    ),
    "a text of 10 MB": ("{{ 'a' * 10 ** 7 }}", LENGTH),
    "the content a thousand times": ("{{ messages[0]['content'] * 1000 }}", LENGTH),
}
# What raises in the sandbox is nothing to fear: it fails wherever it is used.
BARRED = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['os'].system('touch sentinel') }}",
    "globals by a filter": "{{ (raise_exception | attr('__globals__'))['os'] }}",
    "a format that reads attributes": "{{ '{0.__class__.__mro__}'.format('') | int(default=1) / 0 }}",
    "an undefined name's globals": "{{ lipsum.__globals__['os'].popen('touch sentinel').read() }}",
    "an import": "{% import 'os' as os %}{{ os.system('touch sentinel') }}",
    "an include": "{% include '/etc/passwd' %}",
    "an inheritance": "{% extends '/etc/passwd' %}",
    "a change of the messages": "{{ messages.append(1) }}",
    "a range of 10^12": "{% for a in range(10 ** 12) %}{% endfor %}",
    "recursion": "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}",
    "a refusal": "{{ raise_exception('no') }}",
    "a division by zero": "{{ 1 / 0 }}",
    "a syntax error": "{% for %}",
    "brackets": "{{ " + "(" * 30_000 + ")" * 30_000 + " }}",
    "a sum of 2,000": "{{ " + "+".join(["1"] * 2_000) + " }}",
    "text plus number": "{{ 1 + 'a' }}",
    "a missing row": "{{ messages[99]['content']['x'] }}",
    "unpaired surrogates": "{{ '\\ud800'.encode() }}",
}


def tokenizer_with(template: str) -> Any:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.name_or_path = "t"
    return tokenizer


@pytest.fixture(autouse=True)
def _quick(quick_trials: None) -> None:
    """Every test here has short trials."""


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_template(room: Room, name: str) -> None:
    text, expected = GREEDY[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokenizer = tokenizer_with(text)
    with room.watched(), pytest.raises(ConfigError, match=f"{expected}{REMEDY}"):
        try_template("target t", tokenizer)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB: the child took it, not this one


@pytest.mark.parametrize("name", BARRED)
def test_a_template_that_is_barred(room: Room, name: str) -> None:
    tokenizer = tokenizer_with(BARRED[name])
    with room.watched():
        try_template("target t", tokenizer)
        set_switch(tokenizer, "off")
        with pytest.raises(ConfigError, match="target t: its chat template (refuses a conversation of user: [A-Z])"):
            encode_prompt(tokenizer, "Hi", "template")
    assert not (room.work / "sentinel").exists()


def test_a_template_that_ends_its_process(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_first_fault", lambda render: os._exit(3))
    with room.watched(), pytest.raises(ConfigError, match="its chat template ended the process in which it was tried"):
        try_template("target t", tokenizer_with("{{ 'new' }}"))


def test_a_process_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", full)
    with pytest.raises(ConfigError, match="cannot be tried in a process of its own: Cannot allocate memory; do not"):
        try_template("target t", tokenizer_with("{{ 'new' }}"))


def test_a_child_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_WALL_SECONDS", 0.2)
    monkeypatch.setattr(templates, "_first_fault", lambda render: signal.pause())
    with pytest.raises(ConfigError, match=TIME):
        try_template("target t", tokenizer_with("{{ 'new' }}"))


def test_the_child_holds_nothing_open(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with (room.work / "ledger").open("w") as journal:

        def look(render: object) -> str:
            try:
                os.fstat(journal.fileno())
            except OSError:
                return "passed"
            return "holds the journal"

        monkeypatch.setattr(templates, "_first_fault", look)
        try_template("target t", tokenizer_with("{{ 'new' }}"))


def test_a_template_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Callable[..., str]] = []
    monkeypatch.setattr(templates, "_try_in_child", tried.append)
    for _ in range(3):
        try_template("target t", tokenizer_with(CHAT_TEMPLATE))
    assert len(tried) == 1
    try_template("target t", tokenizer_with(CHAT_TEMPLATE + " "))
    assert len(tried) == 2


def test_no_template_is_tried_where_there_is_none() -> None:
    try_template("target t", tokenizer_with(""))
    several: Any = tokenizer_with("x")
    several.chat_template = {"a": "x", "b": "y"}
    try_template("target t", several)


def test_a_long_template_is_not_even_tried() -> None:
    with pytest.raises(ConfigError, match="target t: has a chat template of 100,001 characters; keep it under 100,000"):
        try_template("target t", tokenizer_with("a" * 100_001))


SLY = {
    "loops": ("{% if 'magic' in messages[0]['content'] %}" + GREEDY["loops in loops"][0] + "{% endif %}", TIME),
    "writes": ("{% if 'magic' in messages[0]['content'] %}" + GREEDY["a text of 10 MB"][0] + "{% endif %}", LENGTH),
    "recurses": ("{% if 'magic' in messages[0]['content'] %}" + BARRED["recursion"] + "{% endif %}", "RecursionError"),
}


@pytest.mark.parametrize("name", SLY)
def test_a_template_that_waits_for_a_certain_row(room: Room, name: str) -> None:
    text, expected = SLY[name]
    tokenizer = tokenizer_with(CHAT_TEMPLATE + text)
    handler = signal.getsignal(signal.SIGVTALRM)
    with room.watched():
        encode_prompt(tokenizer, "Hi", "template")
        with pytest.raises(ConfigError, match=expected):
            encode_prompt(tokenizer, "magic", "template")
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_a_template_that_waits_for_a_switch(room: Room, name: str, value: str) -> None:
    greedy = f"{{% if {name} is defined and {name} is {value} %}}{GREEDY['loops in loops'][0]}{{% endif %}}"
    with room.watched(), pytest.raises(ConfigError, match=TIME):
        try_template("target t", tokenizer_with(CHAT_TEMPLATE + greedy))


@pytest.mark.parametrize("name", ["loops", "writes"])
def test_a_template_that_waits_for_the_switch_and_its_chat(room: Room, name: str) -> None:
    text = "{% if thinking is defined %}" + SLY[name][0].replace("magic", "Hello.") + "{% endif %}"
    tokenizer = tokenizer_with(CHAT_TEMPLATE + text)
    with room.watched():
        try_template("target t", tokenizer)
        with pytest.raises(ConfigError, match=SLY[name][1]):
            set_switch(tokenizer, "off")


def test_a_signal_beside_the_fork_is_not_heard_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    fork, pid, before = os.fork, os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def forked() -> int:
        child = fork()
        os.kill(os.getpid(), signal.SIGTERM)
        return child

    def look(render: object) -> str:
        held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        return "passed" if held <= signal.pthread_sigmask(signal.SIG_BLOCK, []) and not heard else "heard it"

    handler = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(os.getpid()))
    try:
        monkeypatch.setattr(os, "fork", forked)
        monkeypatch.setattr(templates, "_first_fault", look)
        try_template("target t", tokenizer_with("{{ 'new' }}"))
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert heard == [pid]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_verdict_comes_through_a_high_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        try_template("target t", tokenizer_with("{{ 'new' }}"))
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_another_thread_renders_without_the_timer() -> None:
    found: list[str] = []
    tokenizer = tokenizer_with(CHAT_TEMPLATE)

    def render() -> None:
        found.append(render_bounded("target t", tokenizer, CHAT, add_generation_prompt=True))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert found == ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"]


def test_the_limits_leave_real_templates_alone() -> None:
    tokenizer = tokenizer_with(CHAT_TEMPLATE)
    long = "word " * 50_000
    assert len(render_bounded("target t", tokenizer, [{"role": "user", "content": long}], add_generation_prompt=True))
