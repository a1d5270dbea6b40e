"""What the package exports is one list, and nothing else looks public."""

from __future__ import annotations

import tomllib
import types

from harness import REPOSITORY

import tensord


def test_all_lists_every_public_member() -> None:
    public = [
        name
        for name, member in vars(tensord).items()
        if not name.startswith("_") and not isinstance(member, types.ModuleType)
    ]
    assert sorted([*public, "__version__"]) == sorted(tensord.__all__)


def test_all_is_sorted_and_without_repeats() -> None:
    assert list(tensord.__all__) == sorted(set(tensord.__all__))


def test_the_version_is_the_packages_own() -> None:
    text = (REPOSITORY / "clients/python/pyproject.toml").read_text()
    assert tensord.__version__ == tomllib.loads(text)["project"]["version"]


def test_every_exported_member_says_what_it_is() -> None:
    for name in tensord.__all__:
        member = getattr(tensord, name)
        assert (member.__doc__ or "").strip(), name


def test_types_carry_the_name_that_a_caller_can_import() -> None:
    for name in tensord.__all__:
        member = getattr(tensord, name)
        if isinstance(member, type):
            assert member.__module__ == "tensord", name
