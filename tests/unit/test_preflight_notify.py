"""Preflight of the URLs of notifications: it says what is wrong with them, and nothing that is in them."""

import warnings
from typing import Any

import pytest

from occupancy_db.notify import send
from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]

SECRET = "5ecret"


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    """Load Apprise's plugins: one imports a module that Python deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        send.usable("json://example.org")


@pytest.mark.parametrize(
    "url",
    [
        "ntfys://ntfy.sh/attic-7f3kq9",
        "ntfys://user:pass@ntfy.example.org/alerts",
        "mailto://user:app-password@gmail.com",
        "mailtos://user:pass%40word@example.org?smtp=mail.example.org&from=db@example.org&to=me@example.org",
        "tgram://123456789:abcdefg_hijklmnop-qrstuvw/12315544",
        "hassio://host.docker.internal/long-lived-token",
        "mqtt://user:password@host.docker.internal/home/alerts?qos=1",
        "jsons://hooks.example.org/occupancy",
    ],
)
def test_urls_as_in_the_document_are_accepted(url: str) -> None:
    assert problems(occupancy_notify=[url]) == []


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ([SECRET], "Entry 1 of occupancy_notify is no URL of Apprise"),
        ([f"{SECRET}@gmail.com"], "Entry 1 of occupancy_notify is no URL of Apprise"),
        ([{"url": SECRET}], "Entry 1 of occupancy_notify is no URL of Apprise"),
        ([None], "Entry 1 of occupancy_notify is no URL of Apprise"),
        (
            ["json://a", f"nfty://{SECRET}"],
            "Entry 2 of occupancy_notify (nfty) cannot be used: Apprise",
        ),
        ([f"tgram://{SECRET}"], "Entry 1 of occupancy_notify (tgram) cannot be used"),
        ([f"json://{SECRET}\n"], "Entry 1 of occupancy_notify (json) has a line break"),
        ([f"json://x:{SECRET}@localhost"], "Entry 1 of occupancy_notify (json) names the container"),
        ([f"mqtt://{SECRET}@127.0.1.1/a"], "Entry 1 of occupancy_notify (mqtt) names the container"),
        ([f"json://{SECRET}"] * 2, "Entry 2 of occupancy_notify (json) is the same as entry 1"),
        ([f"json://{SECRET}{n}" for n in range(21)], "occupancy_notify has 21 entries, and at most 20"),
        (SECRET, "occupancy_notify must be a list, and is a string"),
        ({"url": SECRET}, "and we were unable to convert to list"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_by_its_place_and_scheme(
    urls: Any, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (problem,) = problems(occupancy_notify=urls)
    assert said in problem
    shown = "".join([problem, *capfd.readouterr()])
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://hc-ping.com/5e0c2f0a", ""),
        ("http://192.168.1.5:3001/api/push/abc?status=up", ""),
        (SECRET, "must be a URL that begins with https:// or http://"),
        (f"ftp://{SECRET}", "must be a URL that begins with"),
        (f"https:///{SECRET}", "must be a URL that begins with"),
        (f"https://[{SECRET}", "must be a URL that begins with"),
        (f"https://hc-ping.com/{SECRET} x", "must be a URL that begins with"),
        ({"url": SECRET}, "must be a URL that begins with"),
        (f"http://localhost/{SECRET}", "names the container"),
    ],
)
def test_a_heartbeat_is_a_url_of_the_web(url: Any, said: str) -> None:
    found = problems(occupancy_notify_heartbeat=url)
    assert (said in "".join(found)) if said else found == []
    assert SECRET not in "".join(found)
