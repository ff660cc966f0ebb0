"""Secrets are hidden wherever they stand in a text, and nothing else is."""

import io

import pytest

from robustlab.errors import ConfigError, Fault, InvalidFile
from robustlab.redaction import HIDDEN, find_secret, redact
from robustlab.report.live import LiveLine
from robustlab.report.wandb import WandbMirror

ENVIRON = {
    "HF_TOKEN": "canary-token-0001",
    "WANDB_API_KEY": "canary-token-0001-and-more",
    "openai_key": "canary-key-0003 ",
    "DB_PASSWORD": "short",
    "TOKENIZERS_PARALLELISM": "canary-none-0005",
    "KEYBOARD": "canary-none-0006",
    "AWS_ACCESS_KEY_ID": "canary-id-0007",
}


def test_the_value_of_a_variable_that_says_so_is_hidden() -> None:
    text = "got canary-token-0001-and-more, canary-token-0001, canary-key-0003 and canary-id-0007."
    # The longest goes first, so that no end of it is left over.
    assert redact(text, ENVIRON) == f"got {HIDDEN}, {HIDDEN}, {HIDDEN} and {HIDDEN}."


@pytest.mark.parametrize("text", ["short", "canary-none-0005", "canary-none-0006", "", "a plain sentence"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, ENVIRON) == text
    assert find_secret(text, ENVIRON) is None


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a1B2" * 6,
        "sk-" + "proj-a1B2c3" * 3,
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 40,
        "glpat-" + "a" * 20,
        "xoxb-" + "1" * 12,
        "AKIA" + "A" * 16,
        "AIza" + "a" * 35,
        "wandb_v1_" + "a" * 30,
        "-----BEGIN PRIVATE KEY-----\nMIIE+a/b=\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\\nMIIE\\n-----END OPENSSH PRIVATE KEY-----",
    ],
)
def test_a_well_known_form_is_hidden_without_any_variable(secret: str) -> None:
    assert redact(f"model: {secret}, and more", {}) == f"model: {HIDDEN}, and more"
    assert find_secret(f"x={secret}", {}) == 2
    assert find_secret(f"y {ENVIRON['HF_TOKEN']} x={secret}", ENVIRON) == 2


def test_a_private_key_that_was_cut_is_hidden_to_the_end() -> None:
    assert redact("got -----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc", {}) == f"got {HIDDEN}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer ab.c1-_~+/xyz0==, then", f"Authorization: Bearer {HIDDEN}, then"),
        ("'bearer " + "a" * 40 + "'", f"'bearer {HIDDEN}'"),
        ("https://h/v1?api_key=abcdef&x=1", f"https://h/v1?api_key={HIDDEN}&x=1"),
        ("https://h/v1?x=1&token=abcdef1 failed", f"https://h/v1?x=1&token={HIDDEN} failed"),
        ("https://h/?ACCESS_TOKEN=abcdef#top", f"https://h/?ACCESS_TOKEN={HIDDEN}#top"),
    ],
)
def test_what_is_sent_with_a_request_is_hidden(text: str, expected: str) -> None:
    assert redact(text, {}) == expected
    assert redact(expected, {}) == expected
    assert find_secret(text, {}) == expected.index(HIDDEN)


@pytest.mark.parametrize(
    "text",
    [
        "The bearer internationalization of 2024 failed.",
        "A bearer of bad news, token=abcdef in a sentence",
        "https://h/v1?max_tokens=100000&tokens=abcdefgh&model=abcdefgh",
        "pass ?token=... or &api_key=<key>",
        "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
        "a private key begins with BEGIN PRIVATE KEY",
    ],
)
def test_plain_text_about_secrets_stays(text: str) -> None:
    assert redact(text, {}) == text
    assert find_secret(text, {}) is None


@pytest.mark.parametrize("text", ["task-" + "a" * 30, "shf_" + "a" * 30, "mail@example.org", "hf_short", "sk-learn"])
def test_a_form_within_a_word_is_none(text: str) -> None:
    assert redact(text, {}) == text


def test_the_user_of_a_url_is_hidden_and_the_host_is_not() -> None:
    assert redact("https://me:pass@host:8000/v1 failed", {}) == f"https://{HIDDEN}@host:8000/v1 failed"
    assert redact("https://token@host/v1", {}) == f"https://{HIDDEN}@host/v1"
    assert redact("https://host/v1/@x", {}) == "https://host/v1/@x"


def test_every_error_hides_secrets_in_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-4711")
    assert str(ConfigError("a", "got canary-key-4711", "b")) == f"a: got {HIDDEN}; b"
    fault = Fault("x.yaml", 3, "canary-key-4711", "is not a known key")
    assert str(fault) == f"x.yaml:3: {HIDDEN}: is not a known key"
    assert str(InvalidFile((fault,))) == str(fault)


def test_the_live_line_and_the_mirrors_state_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-4711")
    stream = io.StringIO()
    line = LiveLine(stream)
    line.say("got canary-key-4711")
    with line.stage("asking canary-key-4711"):
        pass
    assert stream.getvalue().count(HIDDEN) == 3 and "canary" not in stream.getvalue()
    mirror = WandbMirror()
    mirror._turn_off(ValueError("no such key: canary-key-4711"))
    assert mirror.state == f"wandb failed: ValueError: no such key: {HIDDEN}"
