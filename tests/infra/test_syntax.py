"""All Bicep files are Bicep, by a grammar that others wrote and by the stricter reader beside this file."""

import re

import pytest
import tree_sitter
import tree_sitter_bicep
from bicep_syntax import parse
from project import INFRA, MAIN

FILES = sorted(INFRA.rglob("*.bicep"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_has_no_syntax_error(path):
    tree = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language())).parse(path.read_bytes())

    def errors(node):
        if node.type == "ERROR" or node.is_missing:
            yield f"{path.name}:{node.start_point.row + 1}: {node.text[:40]!r}"
        for child in node.children:
            yield from errors(child)

    assert list(errors(tree.root_node)) == []
    assert parse(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_declared_in_vain(path):
    text = path.read_text()
    for statement in parse(path):
        if statement.kind in ("param", "var"):
            assert len(re.findall(rf"\b{statement.name}\b", text)) > 1, f"{path.name}: {statement.name} is not used"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_parameter_says_what_it_is(path):
    for statement in parse(path):
        assert statement.kind != "param" or "description" in statement.decorators, f"{path.name}: {statement.name}"


def test_every_file_is_deployed():
    modules = {statement.type for statement in parse(MAIN) if statement.kind == "module"}
    assert {f"app/{path.name}" for path in FILES if path != MAIN} == {m for m in modules if not m.startswith("br/")}


def test_api_and_module_versions_are_pinned_and_no_previews():
    for path in FILES:
        for statement in parse(path):
            if statement.kind == "resource":
                assert re.search(r"@20\d\d-\d\d-\d\d$", statement.type), f"{path.name}: {statement.type}"
            if statement.kind == "module" and not statement.type.startswith("app/"):
                assert re.fullmatch(r"br/public:avm/res/[a-z/-]+:\d+\.\d+\.\d+", statement.type), statement.type
