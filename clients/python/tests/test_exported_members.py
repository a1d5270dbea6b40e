"""What the package exports is one list, and nothing else looks public."""

from __future__ import annotations

import tomllib
import types

import pytest
from harness import REPOSITORY

import tensord
from tensord import cuda

each_module = pytest.mark.parametrize("module", [tensord, cuda], ids=["tensord", "cuda"])


@each_module
def test_all_lists_every_public_member(module: types.ModuleType) -> None:
    public = [
        name
        for name, member in vars(module).items()
        if not name.startswith("_") and not isinstance(member, types.ModuleType)
    ]
    version = ["__version__"] if module is tensord else []
    assert sorted([*public, *version]) == sorted(module.__all__)


@each_module
def test_all_is_sorted_and_without_repeats(module: types.ModuleType) -> None:
    assert sorted(module.__all__) == sorted(set(module.__all__))


def test_the_version_is_the_packages_own() -> None:
    text = (REPOSITORY / "clients/python/pyproject.toml").read_text()
    assert tensord.__version__ == tomllib.loads(text)["project"]["version"]


@each_module
def test_every_exported_member_says_what_it_is(module: types.ModuleType) -> None:
    for name in module.__all__:
        member = getattr(module, name)
        assert (member.__doc__ or "").strip(), name


@each_module
def test_types_carry_the_name_that_a_caller_can_import(module: types.ModuleType) -> None:
    for name in module.__all__:
        member = getattr(module, name)
        if isinstance(member, type):
            assert member.__module__ == module.__name__, name
