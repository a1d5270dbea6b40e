"""Reads what openapi-generator makes for C# with a parser, where there is no compiler to read it.

Finds what the parser does not understand, what has the name of something else, and every 64-bit integer of the document that
has become anything but a `long`. Takes the document's path and the client's folder.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tree_sitter_c_sharp
import yaml
from tree_sitter import Language, Node, Parser

types = {
    f"{kind}_declaration" for kind in ("class", "struct", "interface", "enum", "record", "record_struct", "delegate")
}
# Not methods, which may have a name in common.
members = {"property_declaration", "event_declaration", "enum_member_declaration"} | types


def text(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode()


def name_of(node: Node) -> str:
    parameters = node.child_by_field_name("type_parameters")
    return text(node.child_by_field_name("name")) + (f"`{parameters.named_child_count}" if parameters else "")


def walk(node: Node, kinds: set[str]) -> Iterator[Node]:
    """The nearest ones below it: none that is inside another one."""
    for child in node.children:
        if child.type in kinds:
            yield child
        else:
            yield from walk(child, kinds)


def look_into(declaration: Node, where: str) -> Iterator[str]:
    """Names inside a type: as compilers say it, CS0102 and CS0542."""
    name = name_of(declaration)
    body = declaration.child_by_field_name("body")
    inner = [] if body is None else list(walk(body, members | {"method_declaration"}))
    counted = Counter(name_of(member) for member in inner if member.type != "method_declaration")
    for twice in [member for member, count in counted.items() if count > 1]:
        yield f"{where}: {name} has two members {twice}"
    if declaration.type != "enum_declaration" and any(name_of(member) == name for member in inner):
        yield f"{where}: {name} has a member of its own name"
    for member in inner:
        if member.type in types:
            yield from look_into(member, where)


def is_int64(schema: dict[str, object]) -> bool:
    return schema.get("format") == "int64"


def long_names(schema: dict[str, object]) -> list[str]:
    properties = schema.get("properties", {})
    assert isinstance(properties, dict)
    return [
        "".join(part.capitalize() for part in name.split("_")) for name, inner in properties.items() if is_int64(inner)
    ]


def main(document: Path, client: Path) -> None:
    findings: list[str] = []
    parser = Parser(Language(tree_sitter_c_sharp.language()))
    found: Counter[str] = Counter()
    properties: dict[tuple[str, str], str] = {}
    paths = sorted(client.rglob("*.cs"))
    for path in paths:
        root = parser.parse(path.read_bytes()).root_node
        where = str(path.relative_to(client))
        findings += [f"{where}:{node.start_point.row + 1} is no C#" for node in walk(root, {"ERROR"})]
        for namespace in walk(root, {"namespace_declaration", "file_scoped_namespace_declaration"}):
            for declaration in walk(namespace, types):
                if not any(text(child) == "partial" for child in declaration.children):
                    found[f"{text(namespace.child_by_field_name('name'))}.{name_of(declaration)}"] += 1
                findings += look_into(declaration, where)
                for member in walk(declaration, {"property_declaration"}):
                    properties[name_of(declaration), name_of(member)] = text(member.child_by_field_name("type"))
    findings += [f"two types are called {name}" for name, count in found.items() if count > 1]

    schemas = yaml.safe_load(document.read_text())["components"]["schemas"]
    longs = [(name, member) for name, schema in schemas.items() for member in long_names(schema)]
    for name, member in longs:
        made = properties.get((name, member), "not there")
        if made not in ("long", "long?"):
            findings.append(f"{name}.{member} is {made}, want long")
    if not paths or not longs:
        findings.append(f"{len(paths)} files and {len(longs)} 64-bit integers were looked at")
    if findings:
        sys.exit("\n".join(findings))


main(Path(sys.argv[1]), Path(sys.argv[2]))
