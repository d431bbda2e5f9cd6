"""The manifests run each function of the repository once, and scale it by the entity that its trigger names."""

import json

from conftest import ROOT, container, pod, runs

# What `azure-servicebus` knows: https://keda.sh/docs/latest/scalers/azure-service-bus/
SCALER_METADATA = {"queueName", "topicName", "subscriptionName", "namespace", "messageCount", "activationMessageCount"}


def test_every_function_has_exactly_one_deployment(deployments, functions):
    everywhere = [name for deployment in deployments.values() for name in runs(deployment)]
    assert sorted(everywhere) == sorted(functions)


def test_http_functions_share_one_deployment_and_every_other_has_its_own(deployments, functions):
    for name, deployment in deployments.items():
        types = {functions[f]["type"] for f in runs(deployment)}
        if types == {"httpTrigger"}:
            assert set(runs(deployment)) == {f for f, trigger in functions.items() if trigger["type"] == "httpTrigger"}
        else:
            assert runs(deployment) == [name]


def test_every_service_bus_trigger_is_scaled_by_its_own_entity(manifests, deployments, functions, host):
    scaled = manifests.kind("ScaledObject")
    waiting = {f: t for f, t in functions.items() if t["type"] == "serviceBusTrigger"}
    assert set(scaled) == set(waiting)
    concurrency = host["extensions"]["serviceBus"]["maxConcurrentCalls"]
    for name, trigger in waiting.items():
        spec = scaled[name]["spec"]
        assert runs(deployments[spec["scaleTargetRef"]["name"]]) == [name]
        (keda,) = spec["triggers"]
        assert keda["type"] == "azure-servicebus"
        metadata = keda["metadata"]
        assert set(metadata) <= SCALER_METADATA
        for entity in ("queueName", "topicName", "subscriptionName"):
            assert metadata.get(entity) == trigger.get(entity)
        assert int(metadata["messageCount"]) == concurrency
        assert keda["authenticationRef"]["name"] in manifests.kind("TriggerAuthentication")
        assert 0 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        assert spec["fallback"]["replicas"] >= 1
        # Two scalers, or a fixed number, would pull at one Deployment.
        assert "replicas" not in deployments[name]["spec"]


def test_what_is_scaled_exists_in_the_topology(manifests):
    (namespace,) = json.loads((ROOT / "servicebus.json").read_text())["UserConfig"]["Namespaces"]
    queues = {q["Name"] for q in namespace["Queues"]}
    subscriptions = {(t["Name"], s["Name"]) for t in namespace["Topics"] for s in t["Subscriptions"]}
    for scaled in manifests.kind("ScaledObject").values():
        (trigger,) = scaled["spec"]["triggers"]
        metadata = trigger["metadata"]
        if "queueName" in metadata:
            assert metadata["queueName"] in queues
        else:
            assert (metadata["topicName"], metadata["subscriptionName"]) in subscriptions


def test_http_is_never_alone_and_scaled_by_processor(manifests, deployments):
    (scaler,) = manifests.kind("HorizontalPodAutoscaler").values()
    target = scaler["spec"]["scaleTargetRef"]["name"]
    assert "checkout" in runs(deployments[target])
    assert "replicas" not in deployments[target]["spec"]
    assert scaler["spec"]["minReplicas"] >= 2
    (metric,) = scaler["spec"]["metrics"]
    assert metric["resource"]["name"] == "cpu"
    # Utilisation is a part of what is asked for.
    assert container(deployments[target])["resources"]["requests"]["cpu"]


def test_the_timer_runs_once(manifests, deployments, functions):
    (timer,) = [f for f, trigger in functions.items() if trigger["type"] == "timerTrigger"]
    assert deployments[timer]["spec"]["replicas"] == 1
    assert timer not in manifests.kind("ScaledObject")


def test_requests_reach_the_http_functions_and_nothing_of_the_host(manifests, deployments):
    (service,) = manifests.kind("Service").values()
    (http,) = [d for d in deployments.values() if "checkout" in runs(d)]
    labels = http["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    others = [d["spec"]["template"]["metadata"]["labels"] for d in deployments.values() if d is not http]
    assert not any(service["spec"]["selector"].items() <= other.items() for other in others)
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in {p["name"] for p in container(http)["ports"]}
    (route,) = manifests.kind("HTTPRoute").values()
    (rule,) = route["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/api"}}]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": port["port"]}]
    (gateway,) = route["spec"]["parentRefs"]
    (entrance,) = manifests.kind("NetworkPolicy")["http"]["spec"]["ingress"]
    (peer,) = entrance["from"]
    assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == gateway["namespace"]


def test_the_email_limit_is_what_the_provider_allows_divided_by_the_instances(manifests, settings):
    assert settings["EMAIL_PROVIDER"] == "acs"
    allowed = {"m": 30, "h": 100}
    instances = manifests.kind("ScaledObject")["notify"]["spec"]["maxReplicaCount"]
    limits = dict(reversed(part.split("/")) for part in settings["EMAIL_RATE_LIMIT"].split(","))
    assert set(limits) == set(allowed)
    for period, count in limits.items():
        assert int(count) * instances <= allowed[period]


def test_a_pod_has_the_time_it_takes_to_stop(deployments):
    source = (ROOT / "src/main.rs").read_text()
    longest = int(source.split("LONGEST_STOP: Duration = Duration::from_secs(")[1].split(")")[0])
    # The host waits for its listeners for so long before it ends the handler.
    listeners = 10
    for deployment in deployments.values():
        lead = container(deployment).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod(deployment)["terminationGracePeriodSeconds"] >= lead + listeners + longest
        # Else Kubernetes and the endpoints race, and a request lands on a pod that is gone.
        assert bool(lead) == ("checkout" in runs(deployment))


def test_the_page_says_what_runs_where(manifests, deployments):
    """The table of docs/KUBERNETES.md: Deployment, functions, instances."""
    page = (ROOT / "docs/KUBERNETES.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    said = {row[0].strip(" `"): row for row in rows if row[0].strip(" `") in deployments}
    assert set(said) == set(deployments)
    for name, (_, functions, instances, _) in said.items():
        assert functions.replace("`", "").split() == runs(deployments[name])
        if name in manifests.kind("ScaledObject"):
            spec = manifests.kind("ScaledObject")[name]["spec"]
            assert instances.strip() == f"{spec['minReplicaCount']} to {spec['maxReplicaCount']}"
        elif name in manifests.kind("HorizontalPodAutoscaler"):
            spec = manifests.kind("HorizontalPodAutoscaler")[name]["spec"]
            assert instances.strip() == f"{spec['minReplicas']} to {spec['maxReplicas']}"
        else:
            assert instances.strip() == str(deployments[name]["spec"]["replicas"])
