"""The template of Container Apps, parsed and not compiled: there is no Bicep compiler in the registries used here."""

import json
import re

import pytest
from conftest import ROOT
from pycep import BicepParser
from settings_read import is_read

TEXT = (ROOT / "deploy/container-apps/main.bicep").read_text()


@pytest.fixture(scope="module")
def template() -> dict:
    return BicepParser().parse(text=TEXT)


@pytest.fixture(scope="module")
def app(template) -> dict:
    (resource,) = template["resources"].values()
    assert resource["type"] == "Microsoft.App/containerApps"
    # The first version without `preview` that has `kind`.
    assert resource["api_version"] == "2025-07-01"
    return resource["config"]


def only_container(app) -> dict:
    (container,) = app["properties"]["template"]["containers"]
    return container


def test_the_platform_writes_the_scale_rules(app):
    assert app["kind"] == "functionapp"
    assert set(app["properties"]["template"]["scale"]) == {"minReplicas", "maxReplicas"}


def test_every_parameter_is_described(template):
    parameters = re.findall(r"^param (\w+)", TEXT, re.M)
    assert sorted(parameters) == sorted(template["parameters"])
    for name, parameter in template["parameters"].items():
        assert any(d["type"] == "description" and d["argument"] for d in parameter["decorators"]), name


def test_every_parameter_and_variable_is_used(template):
    for name in [*template["parameters"], *template["variables"]]:
        assert len(re.findall(rf"\b{name}\b", re.sub(r"@description\(.*\)", "", TEXT))) > 1, name


def test_probes_and_times_are_within_what_the_platform_takes(app, deployments):
    deployment = next(iter(deployments.values()))["spec"]["template"]["spec"]
    kubernetes = deployment["containers"][0]
    probes = {p["type"]: p for p in only_container(app)["probes"]}
    assert set(probes) == {"Startup", "Readiness", "Liveness"}
    for kind, probe in probes.items():
        assert 1 <= probe["failureThreshold"] <= 10
        assert 1 <= probe["periodSeconds"] <= 240
        assert probe["httpGet"]["path"] == kubernetes[f"{kind.lower()}Probe"]["httpGet"]["path"]
        assert probe["httpGet"]["port"] == kubernetes["ports"][0]["containerPort"]
    assert probes["Startup"]["periodSeconds"] * probes["Startup"]["failureThreshold"] >= 120
    assert app["properties"]["configuration"]["ingress"]["targetPort"] == kubernetes["ports"][0]["containerPort"]
    assert app["properties"]["template"]["terminationGracePeriodSeconds"] == deployment["terminationGracePeriodSeconds"]


def test_ingress_is_https_only_and_nothing_has_a_password(app):
    configuration = app["properties"]["configuration"]
    assert configuration["ingress"]["allowInsecure"] is False
    (registry,) = configuration["registries"]
    assert set(registry) == {"server", "identity"}
    assert app["identity"]["type"] == "UserAssigned"


def test_settings_are_read_by_somebody_and_are_those_of_kubernetes(template, settings):
    written = re.search(r"var hostSettings = \{(.*?)\n\}", TEXT, re.S).group(1)
    names = re.findall(r"^  (\w+):", written, re.M)
    assert len(names) >= 10
    assert {name for name in names if not is_read(name) and name != "AZURE_CLIENT_ID"} == set()
    assert '"AZURE_CLIENT_ID"' in (ROOT / "src/identity.rs").read_text()
    base = (ROOT / "deploy/kubernetes/base/settings.env").read_text()
    for name in re.findall(r"^(\w+)=", base, re.M):
        assert name in names, f"{name} is set on Kubernetes"
    for name in ("ORDERS_TOPIC", "ORDER_BOOK", "VENDORS_FILE", "AzureWebJobsSecretStorageType"):
        assert f"{name}: '{settings[name]}'" in written


def test_the_vendors_are_a_file_where_the_setting_says(app, settings):
    (volume,) = app["properties"]["template"]["volumes"]
    (mount,) = only_container(app)["volumeMounts"]
    assert volume["storageType"] == "Secret" and mount["volumeName"] == volume["name"]
    assert f"{mount['mountPath']}/{volume['secrets'][0]['path']}" == settings["VENDORS_FILE"]
    assert "'vendors'" in json.dumps(volume) or volume["secrets"][0]["secretRef"] == "vendors"
