"""What the address of a server may be, and that nothing which may be a secret is repeated."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from robustlab.errors import InvalidFile
from robustlab.spec.endpoints import BaseUrl, EndpointSpec
from robustlab.spec.loader import load_yaml

FILE = """\
base_url: {url}
model: small
key_variable: {key}
deadline_seconds: 60
max_attempts: {attempts}
usd_per_million_prompt_tokens: {price}
usd_per_million_generated_tokens: 0
price_source: my own machine
"""


def read(path: Path, url: str, *, key: str = "null", price: str = "0", attempts: str = "3") -> EndpointSpec:
    path.write_text(FILE.format(url=url, key=key, price=price, attempts=attempts), encoding="utf-8")
    found: EndpointSpec = load_yaml(path, TypeAdapter(EndpointSpec))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.yaml"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("https://api.example.org/v1", "https://api.example.org/v1"),
        ("http://node_7.lan:8000", "http://node_7.lan:8000"),
        ("'http://[::1]:8000/v1'", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_kept_without_its_last_slash(path: Path, url: str, kept: str) -> None:
    assert read(path, url).base_url == kept


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.org", "must be a URL such as http://127.0.0.1:8000/v1, got 'ftp://example.org'"),
        ("127.0.0.1:8000", "must be a URL such as http://127.0.0.1:8000/v1, got '127.0.0.1:8000'"),
        ("http://:8000/v1", "must be a URL such as http://127.0.0.1:8000/v1, got 'http://:8000/v1'"),
        ("http://a..b/v1", "must be a URL such as http://127.0.0.1:8000/v1, got 'http://a..b/v1'"),
        (f"http://{'a' * 64}.org", f"must be a URL such as http://127.0.0.1:8000/v1, got 'http://{'a' * 64}.org'"),
        ("http://a:99999/v1", "must be a URL such as http://127.0.0.1:8000/v1, got one that cannot be read"),
        ("'http://[::1/v1'", "must be a URL such as http://127.0.0.1:8000/v1, got one that cannot be read"),
        ("http://a.org/v1?key=canary", "must hold no query, no fragment, no spaces and only ASCII"),
        ("'http://a.org/v 1'", "must hold no query, no fragment, no spaces and only ASCII"),
        ("http://a.org/ü", "must hold no query, no fragment, no spaces and only ASCII"),
    ],
)
def test_an_address_that_is_none_is_refused(path: Path, url: str, problem: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(path, url)
    assert str(caught.value) == f"{path}:1: base_url: {problem}"
    assert "canary" not in str(caught.value)


def test_a_user_and_a_password_are_refused_by_the_file_and_by_the_field(path: Path) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(path, "http://me:canary@example.org")
    assert str(caught.value) == f"{path}:1: holds a secret; take it out, and put it into an environment variable"
    problem = "must hold no user and no password; name an environment variable in key_variable instead"
    with pytest.raises(ValidationError, match=problem):
        TypeAdapter(BaseUrl).validate_python("http://me:canary@example.org")


@pytest.mark.parametrize("key", ["sk-canary-1234", "canary", "'A KEY'"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(path: Path, key: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(path, "https://api.example.org/v1", key=key)
    problem = "must be the name of an environment variable such as OPENAI_API_KEY, not the key itself"
    assert str(caught.value) == f"{path}:3: key_variable: {problem}"


def test_a_key_leaves_this_machine_only_encrypted(path: Path) -> None:
    assert read(path, "http://127.0.0.1:8000/v1", key="MY_KEY").key_variable == "MY_KEY"
    assert read(path, "https://api.example.org/v1", key="MY_KEY").key_variable == "MY_KEY"
    with pytest.raises(InvalidFile) as caught:
        read(path, "http://api.example.org/v1", key="MY_KEY")
    assert str(caught.value) == f"{path}:1: base_url: must be https where a key is sent to another machine, got http"


def test_prices_and_tries_are_bounded(path: Path) -> None:
    with pytest.raises(InvalidFile, match="usd_per_million_prompt_tokens: must be greater than or equal to 0, got -1"):
        read(path, "http://127.0.0.1:8000/v1", price="-1")
    with pytest.raises(InvalidFile, match="max_attempts: must be less than or equal to 20, got 21"):
        read(path, "http://127.0.0.1:8000/v1", attempts="21")
