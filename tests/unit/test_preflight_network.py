"""Preflight's checks of engine and addresses: what would let every client in, or none."""

from typing import Any

import pytest

from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]

EVERY = "0.0.0.0"  # noqa: S104

ADDRESSES: list[tuple[object, str, object]] = [
    (["127.0.0.1", "fd00::5"], "'fd00::5', which is no IPv4 address. Of IPv6 only ::1", ["127.0.0.1", "::1"]),
    ([EVERY, "192.168.1.7"], "0.0.0.0 is all of them already", [EVERY, "::1"]),
    (["127.0.0.1", "127.0.0.1"], "each address once", ["127.0.0.1", "192.168.1.7"]),
    ("::1", "an IPv4 address among them", EVERY),
    ([], "which is no IPv4 address", ["127.0.0.1"]),
]


@pytest.mark.parametrize(("bad", "says", "good"), ADDRESSES)
def test_listen_addresses_are_refused_or_accepted(bad: object, says: str, good: object) -> None:
    said = problems(occupancy_listen_address=bad)
    assert says in said[0]
    assert problems(occupancy_listen_address=good) == []


@pytest.mark.parametrize(
    ("addresses", "listener", "refused"),
    [
        (["127.0.0.1", "192.168.1.7"], "192.168.1.7:5432 users:((x", True),
        (["127.0.0.1", "192.168.1.7"], "192.168.1.8:5432 users:((x", False),
        (["127.0.0.1", "::1"], "[::1]:5432 users:((x", True),
        ("127.0.0.1", "[::1]:5432 users:((x", False),
        # The host's own programs find the server there, whatever the list is.
        ("192.168.1.7", "127.0.0.1:5432 users:((x", True),
    ],
)
def test_a_port_is_in_use_on_any_of_the_addresses(addresses: object, listener: str, refused: bool) -> None:
    host: dict[str, Any] = {"containers": [], "listeners": [listener]}
    assert bool(problems(host=host, occupancy_listen_address=addresses)) is refused


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("userns-remap", "Remove userns-remap from /etc/docker/daemon.json"),
        ("rootless", "Use an engine that runs as root"),
        ("snap", "sees neither /opt/occupancy nor the data"),
        ("no-iptables", "occupancy_allowed_cidrs keeps none out"),
    ],
)
def test_an_engine_that_cannot_work_is_refused_with_the_reason(kind: str, says: str) -> None:
    (said,) = problems(host={"engine_kind": [kind]})
    assert says in said
    assert problems(host={"engine_kind": []}) == []


@pytest.mark.parametrize(
    ("owner", "says"),
    [("homeassistant", "the Compose project homeassistant"), ("", "no Compose project")],
)
def test_a_network_of_the_products_name_is_refused_unless_it_is_its_own(owner: str, says: str) -> None:
    (said,) = problems(host={"networks": {"occupancy": owner}})
    assert f"The Docker network occupancy of this host belongs to {says}" in said
    assert "sudo docker network rm occupancy" in said
    for name in ("occupancy-database", "occupancy"):
        assert problems(host={"networks": {"occupancy": name}}) == []
    assert problems(host={"networks": {"bridge": ""}}) == []
