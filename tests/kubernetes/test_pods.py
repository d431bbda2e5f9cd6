"""What every pod may do, and what it may not."""

from conftest import container, pod, runs

UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def labels(deployment: dict) -> dict[str, str]:
    return deployment["spec"]["template"]["metadata"]["labels"]


def selects(selector: dict, deployment: dict) -> bool:
    assert set(selector) <= {"matchLabels"}, "expressions are not understood here"
    return selector.get("matchLabels", {}).items() <= labels(deployment).items()


def test_no_pod_is_root_or_can_become_it(manifests, deployments):
    for deployment in deployments.values():
        security = pod(deployment)["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0 and security["runAsGroup"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(deployment)["securityContext"] == UNPRIVILEGED
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod(deployment))
    namespace = manifests.kind("Namespace")["orderup"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_the_host_writes_goes_with_the_pod_and_is_bounded(deployments):
    for deployment in deployments.values():
        writable = {m["mountPath"] for m in container(deployment)["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"/tmp", "/azure-functions-host/Secrets"}
        for volume in pod(deployment)["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


def test_every_pod_asks_for_what_it_needs_and_bounds_its_memory(deployments):
    for deployment in deployments.values():
        resources = container(deployment)["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert "memory" in resources["limits"]


def test_every_pod_is_probed_where_the_host_answers_without_a_key(deployments):
    for deployment in deployments.values():
        only = container(deployment)
        ports = {p["name"] for p in only["ports"]}
        for probe, path in {
            "startupProbe": "/runtime/health/ready",
            "readinessProbe": "/runtime/health/ready",
            "livenessProbe": "/admin/host/ping",
        }.items():
            assert only[probe]["httpGet"]["path"] == path
            assert only[probe]["httpGet"]["port"] in ports
        start = only["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 120


def test_every_pod_has_the_identity_of_the_app_and_no_token_for_the_cluster(manifests, deployments):
    for deployment in deployments.values():
        account = manifests.kind("ServiceAccount")[pod(deployment)["serviceAccountName"]]
        assert account["metadata"]["annotations"]["azure.workload.identity/client-id"]
        assert labels(deployment)["azure.workload.identity/use"] == "true"
        assert pod(deployment)["automountServiceAccountToken"] is False
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {m["kind"] for m in manifests}


def test_keda_has_another_identity_than_the_app(manifests):
    (account,) = manifests.kind("ServiceAccount").values()
    (authentication,) = manifests.kind("TriggerAuthentication").values()
    assert authentication["spec"]["podIdentity"]["provider"] == "azure-workload"
    keda = authentication["spec"]["podIdentity"]["identityId"]
    assert keda != account["metadata"]["annotations"]["azure.workload.identity/client-id"]


def test_every_pod_may_be_moved_one_at_a_time(manifests, deployments):
    budgets = manifests.kind("PodDisruptionBudget")
    for deployment in deployments.values():
        (budget,) = [b for b in budgets.values() if selects(b["spec"]["selector"], deployment)]
        assert budget["spec"]["maxUnavailable"] == 1
    assert len(budgets) == len(deployments)


def test_every_pod_is_closed_but_for_what_is_named(manifests, deployments):
    policies = manifests.kind("NetworkPolicy").values()
    for deployment in deployments.values():
        here = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], deployment)]
        for direction in ("Ingress", "Egress"):
            assert any(direction in p["policyTypes"] for p in here), "open for all"
        entrances = [rule for p in here for rule in p.get("ingress", [])]
        if "checkout" in runs(deployment):
            (entrance,) = entrances
            assert entrance["from"][0]["namespaceSelector"]["matchLabels"]
            assert [p["port"] for p in entrance["ports"]] == ["http"]
        else:
            assert not entrances
        exits = [rule for p in here for rule in p.get("egress", [])]
        assert {(p["protocol"], p["port"]) for rule in exits for p in rule["ports"]} == {
            ("UDP", 53),
            ("TCP", 53),
            ("TCP", 443),
            ("TCP", 5671),
            ("TCP", 5672),
        }
        blocks = [peer["ipBlock"] for rule in exits for peer in rule["to"] if "ipBlock" in peer]
        assert blocks and all("169.254.0.0/16" in block["except"] for block in blocks)


def test_pods_spread_and_run_only_where_the_image_does(deployments):
    for deployment in deployments.values():
        keys = {c["topologyKey"] for c in pod(deployment)["topologySpreadConstraints"]}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for constraint in pod(deployment)["topologySpreadConstraints"]:
            assert selects(constraint["labelSelector"], deployment)
            assert set(constraint["matchLabelKeys"]) == {"app.kubernetes.io/component", "pod-template-hash"}
        assert pod(deployment)["nodeSelector"]["kubernetes.io/arch"] == "amd64"


def test_a_selector_finds_its_own_pods_and_no_others(deployments):
    for name, deployment in deployments.items():
        found = {n for n, d in deployments.items() if selects(deployment["spec"]["selector"], d)}
        assert found == {name}
