"""The guard itself: tests reach this machine and no other; and the pinned members are whole."""

import socket

import pytest


def test_another_machine_is_refused() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="a test tried to reach"):
        client.connect(("192.0.2.1", 80))
    with socket.socket() as client, pytest.raises(RuntimeError, match="a test tried to reach"):
        client.connect_ex(("192.0.2.1", 80))


def test_a_name_is_not_even_looked_up() -> None:
    with pytest.raises(RuntimeError, match="a test tried to reach"):
        socket.create_connection(("robustlab.invalid", 443))


def test_loopback_is_reached() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_the_pinned_members_have_their_published_sizes(
    over_refusal_probes: list[str], harmbench_standard: list[str]
) -> None:
    assert len(over_refusal_probes) == 80
    assert len(harmbench_standard) == 200
