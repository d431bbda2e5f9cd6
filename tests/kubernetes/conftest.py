"""What the tests look at: the rendered manifests of the example, by kind and name, and the functions of the repository."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy/kubernetes/overlays/example"


def kustomize(folder: Path) -> list[dict]:
    """The manifests of a kustomization, as `kubectl apply -k` would send them. Warnings are failures."""
    ran = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


class Manifests(list):
    def kind(self, kind: str) -> dict[str, dict]:
        return {m["metadata"]["name"]: m for m in self if m["kind"] == kind}


@pytest.fixture(scope="session")
def manifests() -> Manifests:
    return Manifests(kustomize(EXAMPLE))


@pytest.fixture(scope="session")
def deployments(manifests) -> dict[str, dict]:
    found = manifests.kind("Deployment")
    assert found
    return found


@pytest.fixture(scope="session")
def settings(manifests) -> dict[str, str]:
    """Of the ConfigMap whose name ends in a hash."""
    found = [m for name, m in manifests.kind("ConfigMap").items() if name.startswith("orderup-settings-")]
    assert len(found) == 1
    return found[0]["data"]


@pytest.fixture(scope="session")
def functions() -> dict[str, dict]:
    """The trigger of each function, by the name of its folder."""
    found = {
        path.parent.name: next(b for b in json.loads(path.read_text())["bindings"] if b["direction"] == "in")
        for path in ROOT.glob("*/function.json")
    }
    assert len(found) >= 9
    return found


@pytest.fixture(scope="session")
def host() -> dict:
    return json.loads((ROOT / "host.json").read_text())


def pod(deployment: dict) -> dict:
    return deployment["spec"]["template"]["spec"]


def container(deployment: dict) -> dict:
    (only,) = pod(deployment)["containers"]
    return only


def runs(deployment: dict) -> list[str]:
    """The functions that the host of this Deployment is told to run, in its own words: `functions:0`, `functions:1`…"""
    variables = {v["name"]: v["value"] for v in container(deployment)["env"]}
    names = [f"AzureFunctionsJobHost__functions__{i}" for i in range(len(variables))]
    assert set(variables) == set(names), "not numbered from 0 on"
    return [variables[name] for name in names]
