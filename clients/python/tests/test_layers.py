"""The packages stand on floors, and imports run downwards only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import tensord

PACKAGE = Path(tensord.__file__).parent
# From the ground up. Those of one line know nothing of each other.
FLOORS = (
    {"_collector", "_errors", "_version", "_warnings"},
    {"_arguments"},
    {"_wire", "_transport", "_mapping", "_progress_bar"},
    {"_cuda"},
    {"_api", "_tensor"},
    {"_session", "_events"},
    {"_region"},
    {"_ring", "_elastic"},
    {"_client"},
    {"_connect"},
    {"__init__", "cuda", "onnx", "torch"},
    {"testing"},
)
_floor_of = {part: number for number, floor in enumerate(FLOORS) for part in floor}


def _part_of(path: Path) -> str:
    first, *rest = path.relative_to(PACKAGE).parts
    return first if rest else path.stem


def _imported(path: Path) -> Iterator[str]:
    """The parts of this package that a file imports, also where only types are meant."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0 and node.module is not None:
            root, *parts = node.module.split(".")
            if root == "tensord":
                yield from parts[:1] or (alias.name for alias in node.names)
        elif node.level == 1 and path.parent == PACKAGE:
            assert node.module is not None, f"{path} imports the package itself"
            yield node.module.split(".")[0]


def test_every_part_has_a_floor() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts == set(_floor_of)


def test_imports_run_downwards() -> None:
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        part = _part_of(path)
        for other in _imported(path):
            seen += 1
            assert other == part or _floor_of[other] < _floor_of[part], f"{path} imports {other}"
    assert seen > 100
