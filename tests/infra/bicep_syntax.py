"""Reads the Bicep that infra/ is written in: statements and expressions, with Bicep's own precedence.

There is no Bicep compiler in the registries that these tests may use, and the grammars that there are (tree-sitter-bicep,
pycep-parser) read some expressions in another order than Bicep does, or not at all. What this reader does not know is an
error and never passed over, so infra/ keeps to what it knows. `parse` gives a list of `Statement`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BicepError(Exception):
    """What is wrong, and in which file and line."""


@dataclass
class Statement:
    """`kind` is targetScope, param, var, resource, module or output. `type` is a type, a resource type with its version,
    or a module's path. `loop` is (item, index or None, expression); `condition` an expression."""

    kind: str
    name: str
    line: int
    type: str = ""
    existing: bool = False
    value: Any = None
    loop: Any = None
    condition: Any = None
    decorators: dict = field(default_factory=dict)


IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
NUMBER = re.compile(r"\d+")
TYPE = re.compile(r"string\[\]|(string|int|bool|object|array)\b")
ESCAPES = {"\\": "\\", "'": "'", "n": "\n", "r": "\r", "t": "\t", "$": "$"}
# From the loosest to the tightest.
OPERATORS = [["??"], ["||"], ["&&"], ["==", "!="], ["<=", ">=", "<", ">"], ["+", "-"], ["*", "/", "%"]]


def parse(path: Path) -> list[Statement]:
    return _Reader(path.read_text(), path).statements()


class _Reader:
    def __init__(self, text: str, path: Path):
        self.text, self.path, self.at = text, path, 0

    def fail(self, problem: str):
        line = self.text.count("\n", 0, self.at) + 1
        raise BicepError(f"{self.path.name}:{line}: {problem}: {self.text[self.at:self.at + 30]!r}")

    # Characters

    def skip(self, newlines: bool = True):
        while self.at < len(self.text):
            if self.text.startswith("//", self.at):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in (" \t\r\n" if newlines else " \t\r"):
                self.at += 1
            else:
                return

    def peek(self, token: str, newlines: bool = True) -> bool:
        start = self.at
        self.skip(newlines)
        found = self.text.startswith(token, self.at)
        if not found:
            self.at = start
        return found

    def take(self, token: str, newlines: bool = True) -> bool:
        if self.peek(token, newlines):
            self.at += len(token)
            return True
        return False

    def need(self, token: str):
        if not self.take(token):
            self.fail(f"{token!r} should be here")

    def match(self, pattern: re.Pattern) -> str | None:
        self.skip()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
            return found.group()
        return None

    def identifier(self) -> str:
        return self.match(IDENTIFIER) or self.fail("a name should be here")

    # Statements

    def statements(self) -> list[Statement]:
        found = []
        while True:
            self.skip()
            if self.at == len(self.text):
                return found
            found.append(self.statement())

    def statement(self) -> Statement:
        decorators = {}
        while self.take("@"):
            name = self.identifier()
            self.need("(")
            decorators[name] = self.items(")")
        self.skip()
        line = self.text.count("\n", 0, self.at) + 1
        kind = self.identifier()
        match kind:
            case "targetScope":
                statement = Statement(kind, kind, line)
            case "param" | "output":
                statement = Statement(kind, self.identifier(), line, type=self.type())
            case "var":
                statement = Statement(kind, self.identifier(), line)
            case "resource" | "module":
                statement = Statement(kind, self.identifier(), line, type=self.plain_string())
                statement.existing = kind == "resource" and self.take("existing")
            case _:
                self.at -= len(kind)
                self.fail("no statement that is known here begins so")
        statement.decorators = decorators
        if kind == "param" and not self.peek("=", newlines=False):
            return statement
        self.need("=")
        if kind in ("resource", "module"):
            self.body(statement)
        else:
            statement.value = self.expression()
        self.skip(newlines=False)
        if self.at < len(self.text) and self.text[self.at] != "\n":
            self.fail("the statement should end here")
        return statement

    def type(self) -> str:
        return self.match(TYPE) or self.fail("a type that is known here should be here")

    def plain_string(self) -> str:
        value = self.expression()
        return value[1] if value[0] == "value" else self.fail("a plain string should be here")

    def body(self, statement: Statement):
        if self.take("["):
            self.need("for")
            statement.loop = self.loop()
        if self.peek("if"):
            self.need("if")
            self.need("(")
            statement.condition = self.expression()
            self.need(")")
        statement.value = self.expression()
        if statement.loop:
            self.need("]")

    def loop(self):
        if self.take("("):
            item = self.identifier()
            self.need(",")
            index = self.identifier()
            self.need(")")
        else:
            item, index = self.identifier(), None
        self.need("in")
        items = self.expression()
        self.need(":")
        return item, index, items

    # Expressions, as tuples that begin with what they are

    def expression(self):
        condition = self.binary(0)
        if not self.take("?"):
            return condition
        yes = self.expression()
        self.need(":")
        return ("ternary", condition, yes, self.expression())

    def binary(self, level: int):
        if level == len(OPERATORS):
            return self.unary()
        left = self.binary(level + 1)
        while operator := next((o for o in OPERATORS[level] if self.peek(o, newlines=False)), None):
            self.need(operator)
            left = ("binary", operator, left, self.binary(level + 1))
        return left

    def unary(self):
        if self.take("!"):
            return ("not", self.unary())
        return self.postfix(self.primary())

    def postfix(self, value):
        while True:
            following = self.text[self.at : self.at + 2]
            if following[:1] == "!" and following != "!=":
                self.at += 1
            elif following == ".?" or following[:1] == ".":
                self.at += 2 if following == ".?" else 1
                value = ("member", value, ("value", self.identifier()), following == ".?")
            elif following[:1] == "[":
                self.at += 1
                value = ("member", value, self.expression(), False)
                self.need("]")
            elif following[:1] == "(" and value[0] == "name":
                self.at += 1
                value = ("call", value[1], self.items(")"))
            else:
                return value

    def primary(self):
        self.skip()
        if self.text.startswith("'", self.at):
            return self.string()
        if self.take("{"):
            return ("object", self.properties())
        if self.take("["):
            return ("array", self.items("]"))
        if self.take("("):
            value = self.expression()
            self.need(")")
            return value
        if number := self.match(NUMBER):
            return ("value", int(number))
        name = self.identifier()
        if self.take("=>", newlines=False):
            return ("lambda", name, self.expression())
        constants = {"true": True, "false": False, "null": None}
        return ("value", constants[name]) if name in constants else ("name", name)

    def items(self, end: str):
        found = []
        while not self.take(end):
            found.append(self.expression())
            self.separator(end)
        return found

    def properties(self):
        found = []
        while not self.take("}"):
            self.skip()
            key = self.string() if self.text.startswith("'", self.at) else ("value", self.identifier())
            self.need(":")
            found.append((key, self.expression()))
            self.separator("}")
        return found

    def separator(self, end: str):
        """Between entries there is a comma or the end of the line."""
        if self.take(",", newlines=False) or self.peek(end):
            return
        self.skip(newlines=False)
        if self.text[self.at : self.at + 1] != "\n":
            self.fail("a comma or the end of the line should be here")

    def string(self):
        self.need("'")
        parts, text = [], ""
        while True:
            character = self.text[self.at : self.at + 1]
            self.at += 1
            if character == "'":
                break
            if character in ("", "\n"):
                self.fail("the string has no end")
            if character == "\\":
                escape = self.text[self.at]
                text += ESCAPES.get(escape) or self.fail("no such escape")
                self.at += 1
            elif character == "$" and self.take("{", newlines=False):
                parts += [("value", text), self.expression()]
                text = ""
                self.need("}")
            else:
                text += character
        return ("concat", [*parts, ("value", text)]) if parts else ("value", text)
