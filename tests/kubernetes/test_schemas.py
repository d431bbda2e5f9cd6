"""Each manifest is one that the API server takes: Kubernetes' own by the schemas of the version named here, strictly, and the
custom resources by the schemas beside this."""

import json
import os
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import EXAMPLE, ROOT, kustomize

# The oldest that the manifests are for: `lifecycle.preStop.sleep` is for everybody from there on.
KUBERNETES = "1.34"
SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"): "keda-scaledobject.json",
    ("keda.sh/v1alpha1", "TriggerAuthentication"): "keda-triggerauthentication.json",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproute.json",
    ("secrets-store.csi.x-k8s.io/v1", "SecretProviderClass"): "secretproviderclass.json",
}


def check(manifest: dict) -> None:
    custom = CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
    if custom:
        jsonschema.validate(manifest, json.loads((SCHEMAS / custom).read_text()))
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_every_manifest_keeps_to_its_schema(manifests):
    for manifest in manifests:
        check(manifest)
    kinds = {m["kind"] for m in manifests}
    assert kinds >= {kind for _, kind in CUSTOM} | {"Deployment", "Service", "NetworkPolicy", "ConfigMap"}


@pytest.mark.parametrize("kind", ["ScaledObject", "TriggerAuthentication", "SecretProviderClass", "HTTPRoute", "Deployment"])
def test_a_field_that_does_not_exist_is_found(manifests, kind):
    manifest = json.loads(json.dumps(next(iter(manifests.kind(kind).values()))))
    manifest["spec"]["nosuchfield"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(manifest)


def test_all_is_in_one_namespace_under_one_name(manifests):
    seen = set()
    for manifest in manifests:
        metadata = manifest["metadata"]
        if manifest["kind"] == "Namespace":
            assert metadata["name"] == "orderup"
        else:
            assert metadata["namespace"] == "orderup", manifest
        key = manifest["kind"], metadata["name"]
        assert key not in seen
        seen.add(key)


def test_the_component_for_smtp_opens_the_ports_of_mail_for_notify_alone(tmp_path):
    def relative(folder: str) -> str:
        return os.path.relpath(ROOT / "deploy/kubernetes" / folder, tmp_path)

    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [relative("overlays/example")], "components": [relative("components/smtp")]})
    )
    before = {json.dumps(m, sort_keys=True) for m in kustomize(EXAMPLE)}
    (policy,) = [m for m in kustomize(tmp_path) if json.dumps(m, sort_keys=True) not in before]
    check(policy)
    assert policy["metadata"]["namespace"] == "orderup"
    assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "notify"
    (rule,) = policy["spec"]["egress"]
    assert {p["port"] for p in rule["ports"]} == {465, 587}
