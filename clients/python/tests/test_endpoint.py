"""Where a client looks for its server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tensord
from tensord._transport.endpoint import find_endpoint


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "unix:///dev/shm/tensord.default/http.sock"),
        ({"TENSORD_INSTANCE": "a1"}, "unix:///dev/shm/tensord.a1/http.sock"),
        ({"TENSORD_INSTANCE": "", "TENSORD_SHM_DIR": ""}, "unix:///dev/shm/tensord.default/http.sock"),
        ({"TENSORD_SHM_DIR": "/mnt/shm/"}, "unix:///mnt/shm/tensord.default/http.sock"),
        ({"TENSORD_URL": "http://10.0.0.1:7411", "TENSORD_INSTANCE": "a1"}, "http://10.0.0.1:7411"),
        ({"TENSORD_URL": "unix:///run/t.sock"}, "unix:///run/t.sock"),
    ],
)
def test_the_environment_names_the_server(environ: dict[str, str], url: str) -> None:
    assert find_endpoint(None, environ).url == url


def test_an_argument_wins_over_the_environment() -> None:
    assert find_endpoint("http://[::1]:7411/", {"TENSORD_URL": "http://other:1"}).url == "http://[::1]:7411"


# What both clients take, and what both refuse.
ADDRESSES = json.loads((Path(__file__).parents[2] / "addresses.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("given", "url"), ADDRESSES["taken"].items())
def test_an_address_means_the_same_in_both_clients(given: str, url: str) -> None:
    assert find_endpoint(given).url == url
    assert find_endpoint(None, {"TENSORD_URL": given}).url == url


@pytest.mark.parametrize("url", ADDRESSES["refused"])
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(tensord.ValidationFailed, match=r"want http://host:port or unix:///path"):
        tensord.connect(url)


def test_blanks_in_the_environment_are_no_address() -> None:
    assert find_endpoint(None, {"TENSORD_URL": " \n"}).url == "unix:///dev/shm/tensord.default/http.sock"


def test_an_instance_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(tensord.ValidationFailed, match="TENSORD_INSTANCE"):
        find_endpoint(None, {"TENSORD_INSTANCE": "../x"})


def test_a_socket_path_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(tensord.ValidationFailed, match="107"):
        find_endpoint(None, {"TENSORD_SHM_DIR": "/" + "x" * 90})
