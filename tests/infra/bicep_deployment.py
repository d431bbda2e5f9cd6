"""What infra/main.bicep would deploy for given parameters: it evaluates the files, the local modules included.

Modules of the registry (`br/public:…`) are not opened: what they are given is kept, their output `name` is the name they were
given, and any other output is a marked text. So are properties that only Azure knows. `Deployment` has resources and registry
modules with all their values, to be compared with what they should be.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bicep_syntax import BicepError, Statement, parse


@dataclass
class Resource:
    """`name` is whole, with the names of its parents; `body` has everything else."""

    symbol: str
    type: str
    name: str
    existing: bool
    body: dict

    @property
    def id(self) -> str:
        return f"{self.type.split('@')[0]}:{self.name}"


@dataclass
class RegistryModule:
    symbol: str
    source: str
    params: dict


@dataclass
class Deployment:
    resources: list[Resource] = field(default_factory=list)
    modules: list[RegistryModule] = field(default_factory=list)
    outputs: dict = field(default_factory=dict)

    def of_type(self, resource_type: str) -> list[Resource]:
        return [r for r in self.resources if r.type.split("@")[0] == resource_type and not r.existing]

    def module(self, path: str) -> dict:
        """The parameters of the only module of this path."""
        (found,) = [m for m in self.modules if m.source.split(":")[1] == path]
        return found.params


def deploy(main: Path, parameters: dict) -> Deployment:
    deployment = Deployment()
    deployment.outputs = _Scope(main, parameters, deployment).outputs()
    return deployment


class _Unknown(str):
    """What only Azure knows: a text that says what it is, and so is everything in it."""

    def member(self, name):
        return _Unknown(f"<{self.strip('<>')}.{name}>")


class _Absent:
    """A module or resource whose condition is false."""


class _Outputs(dict):
    """Outputs of a registry module."""


class _Scope:
    def __init__(self, path: Path, parameters: dict, deployment: Deployment):
        self.path, self.deployment = path, deployment
        statements = parse(path)
        # An output may have the name of something else.
        self.statements = {s.name: s for s in statements if s.kind != "output"}
        self.output_statements = [s for s in statements if s.kind == "output"]
        self.values: dict[str, Any] = {}
        declared = {n: s for n, s in self.statements.items() if s.kind == "param"}
        if unknown := parameters.keys() - declared:
            raise BicepError(f"{path.name} has no parameters {sorted(unknown)}")
        for name, statement in declared.items():
            if name not in parameters and statement.value is None:
                raise BicepError(f"{path.name} needs the parameter {name}")
            value = parameters[name] if name in parameters else self.evaluate(statement.value, {})
            self.check(statement, value)
            self.values[name] = value

    def check(self, statement: Statement, value):
        kinds = {"string": str, "int": int, "bool": bool, "object": dict, "array": list, "string[]": list}
        decorators = {n: [self.evaluate(a, {}) for a in arguments] for n, arguments in statement.decorators.items()}
        size = len(value) if isinstance(value, (str, list)) else 0
        wrong = (
            not isinstance(value, kinds[statement.type])
            or ("allowed" in decorators and value not in decorators["allowed"][0])
            or ("minValue" in decorators and value < decorators["minValue"][0])
            or ("maxValue" in decorators and value > decorators["maxValue"][0])
            or ("minLength" in decorators and size < decorators["minLength"][0])
            or ("maxLength" in decorators and size > decorators["maxLength"][0] and not isinstance(value, _Unknown))
        )
        if wrong:
            raise BicepError(f"{self.path.name}: the parameter {statement.name} may not be {value!r}")

    def outputs(self) -> dict:
        for name, statement in self.statements.items():
            if statement.kind in ("resource", "module"):
                self.lookup(name)
        return {s.name: self.evaluate(s.value, {}) for s in self.output_statements}

    def lookup(self, name: str):
        if name not in self.values:
            if name not in self.statements:
                raise BicepError(f"{self.path.name}: there is no {name}")
            statement = self.statements[name]
            self.values[name] = self.declared(statement) if statement.kind != "var" else self.evaluate(statement.value, {})
        return self.values[name]

    def declared(self, statement: Statement):
        if statement.loop is None:
            return self.instance(statement, {})
        item, index, items = statement.loop
        found = []
        for number, value in enumerate(self.evaluate(items, {})):
            found.append(self.instance(statement, {item: value} | ({index: number} if index else {})))
        return found

    def instance(self, statement: Statement, names: dict):
        if statement.condition is not None and not self.evaluate(statement.condition, names):
            return _Absent()
        body = self.evaluate(statement.value, names)
        if statement.kind == "module":
            return self.module(statement, body)
        parent = body.pop("parent", None)
        name = f"{parent.name}/{body.pop('name')}" if parent else body.pop("name")
        resource = Resource(statement.name, statement.type, name, statement.existing, body)
        self.deployment.resources.append(resource)
        return resource

    def module(self, statement: Statement, body: dict):
        if statement.type.startswith("br/public:"):
            self.deployment.modules.append(RegistryModule(statement.name, statement.type, body["params"]))
            return {"outputs": _Outputs(symbol=statement.name, name=body["params"]["name"])}
        scope = _Scope(self.path.parent / statement.type, body["params"], self.deployment)
        return {"outputs": scope.outputs()}

    # Expressions

    def evaluate(self, node, names: dict):
        match node:
            case ("value", value):
                return value
            case ("name", name):
                return names[name] if name in names else self.lookup(name)
            case ("concat", parts):
                return "".join(_text(self.evaluate(part, names)) for part in parts)
            case ("object", properties):
                return {self.evaluate(key, names): self.evaluate(value, names) for key, value in properties}
            case ("array", items):
                return [self.evaluate(item, names) for item in items]
            case ("not", value):
                return not self.evaluate(value, names)
            case ("ternary", condition, yes, no):
                return self.evaluate(yes if self.evaluate(condition, names) else no, names)
            case ("binary", operator, left, right):
                return self.binary(operator, left, right, names)
            case ("member", value, key, safe):
                return self.member(self.evaluate(value, names), self.evaluate(key, names), safe)
            case ("lambda", argument, body):
                return lambda value: self.evaluate(body, names | {argument: value})
            case ("call", function, arguments):
                return self.call(function, [self.evaluate(argument, names) for argument in arguments])
        raise BicepError(f"{self.path.name}: {node!r} is not known here")

    def binary(self, operator, left, right, names):
        first = self.evaluate(left, names)
        if operator == "&&":
            return first and self.evaluate(right, names)
        if operator == "||":
            return first or self.evaluate(right, names)
        second = self.evaluate(right, names)
        match operator:
            case "==":
                return first == second
            case "!=":
                return first != second
            case ">":
                return first > second
        raise BicepError(f"{self.path.name}: the operator {operator} is not known here")

    def member(self, value, key, safe):
        if isinstance(value, _Outputs):
            return value[key] if key == "name" else _Unknown(f"<{value['symbol']}.{key}>")
        if isinstance(value, Resource):
            return value.id if key == "id" else value.name if key == "name" else _Unknown(f"<{value.id}.{key}>")
        if isinstance(value, _Unknown):
            return value.member(key)
        try:
            return value[key]
        except (KeyError, IndexError, TypeError):
            if safe:
                return None
            raise BicepError(f"{self.path.name}: there is no {key!r} in {value!r}") from None

    def call(self, function, arguments):
        functions = {
            "concat": lambda *lists: [item for items in lists for item in items],
            "empty": lambda value: not value,
            "filter": lambda items, keep: [item for item in items if keep(item)],
            "flatten": lambda lists: [item for items in lists for item in items],
            "guid": lambda *parts: "guid(" + ", ".join(parts) + ")",
            "items": lambda value: [{"key": k, "value": v} for k, v in sorted(value.items())],
            "join": lambda items, between: between.join(items),
            "loadJsonContent": lambda path: json.loads((self.path.parent / path).read_text()),
            "loadTextContent": lambda path: (self.path.parent / path).read_text(),
            "map": lambda items, change: [change(item) for item in items],
            "max": lambda *numbers: max(numbers),
            "replace": lambda text, old, new: type(text)(text.replace(old, new)),
            "split": lambda text, between: text.split(between),
            "subscription": lambda: {"id": "/subscriptions/0"},
            "subscriptionResourceId": lambda kind, name: f"{kind}/{name}",
            "toLower": lambda text: text.lower(),
            "toObject": lambda items, key, value=lambda item: item: {key(item): value(item) for item in items},
            "trim": lambda text: text.strip(),
            "union": lambda *objects: {k: v for o in objects for k, v in o.items()},
            "uniqueString": lambda *_: "abcdefghijklm",
        }
        if function not in functions:
            raise BicepError(f"{self.path.name}: the function {function} is not known here")
        return functions[function](*arguments)


def _text(value) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, (str, int)):
        return str(value)
    raise BicepError(f"{value!r} cannot be part of a string")
