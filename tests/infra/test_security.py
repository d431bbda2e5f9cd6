"""What must not be open is shut, and what must be seen is watched."""

import json
import re

import pytest
from bicep_deployment import deploy
from bicep_syntax import parse
from project import (
    DEPLOYMENTS,
    MAIN,
    REQUIRED,
    ROOT,
    deployment,
    functions,
    topology,
)

# The parameters that are read in the modules' own main.bicep, or in public templates that name the same version.
KNOWN_PARAMETERS = {
    "avm/res/managed-identity/user-assigned-identity:0.5.0": "name location tags lock roleAssignments enableTelemetry federatedIdentityCredentials isolationScope",
    "avm/res/operational-insights/workspace:0.15.1": "name location tags skuName dataRetention dailyQuotaGb features publicNetworkAccessForIngestion publicNetworkAccessForQuery diagnosticSettings enableTelemetry",
    "avm/res/insights/component:0.7.1": "name location tags kind applicationType workspaceResourceId retentionInDays disableLocalAuth roleAssignments disableIpMasking flowType publicNetworkAccessForIngestion publicNetworkAccessForQuery samplingPercentage enableTelemetry",
    "avm/res/service-bus/namespace:0.17.1": "name location tags skuObject zoneRedundant minimumTlsVersion alternateName premiumMessagingPartitions authorizationRules migrationConfiguration disasterRecoveryConfig diagnosticSettings lock managedIdentities roleAssignments publicNetworkAccess privateEndpoints networkRuleSets disableLocalAuth enableTelemetry queues topics customerManagedKey requireInfrastructureEncryption",
    "avm/res/storage/storage-account:0.32.1": "name location tags kind skuName accessTier allowSharedKeyAccess defaultToOAuthAuthentication allowBlobPublicAccess minimumTlsVersion publicNetworkAccess networkAcls blobServices managementPolicyRules roleAssignments supportsHttpsTrafficOnly requireInfrastructureEncryption allowCrossTenantReplication diagnosticSettings enableTelemetry",
    "avm/res/key-vault/vault:0.14.2": "name location tags sku enableRbacAuthorization enableSoftDelete softDeleteRetentionInDays enablePurgeProtection enableVaultForDeployment enableVaultForTemplateDeployment enableVaultForDiskEncryption publicNetworkAccess networkAcls diagnosticSettings roleAssignments secrets keys createMode enableTelemetry",
    "avm/res/web/serverfarm:0.7.0": "name location tags kind reserved skuName skuCapacity zoneRedundant diagnosticSettings enableTelemetry",
    "avm/res/web/site:0.24.0": "name location tags kind serverFarmResourceId httpsOnly clientAffinityEnabled publicNetworkAccess managedIdentities keyVaultAccessIdentityResourceId basicPublishingCredentialsPolicies functionAppConfig siteConfig configs outboundVnetRouting virtualNetworkSubnetResourceId privateEndpoints diagnosticSettings enableTelemetry",
}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_modules_are_given_parameters_that_they_have(name):
    used = {m.source.removeprefix("br/public:"): set(m.params) for m in deployment(name).modules}
    assert used.keys() == KNOWN_PARAMETERS.keys()
    for source, parameters in used.items():
        assert parameters <= set(KNOWN_PARAMETERS[source].split()), source


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_storage_account(name):
    account = deployment(name).module("avm/res/storage/storage-account")
    assert account["allowSharedKeyAccess"] is False
    assert account["allowBlobPublicAccess"] is False
    assert account["minimumTlsVersion"] == "TLS1_2"
    blobs = account["blobServices"]
    assert blobs["deleteRetentionPolicyEnabled"] and blobs["containerDeleteRetentionPolicyEnabled"]
    assert {c["name"]: c["publicAccess"] for c in blobs["containers"]} == {"packages": "None", "order-book": "None"}


def test_orders_are_forgotten_only_if_that_was_said_and_the_outbox_never():
    for days, enabled, least in ((0, False, 1), (1, True, 1), (400, True, 400)):
        account = deploy(MAIN, REQUIRED | {"orderBookRetentionDays": days}).module("avm/res/storage/storage-account")
        # Without days there is a rule too, which is off: one that is left out stays in Azure as it was.
        (rule,) = account["managementPolicyRules"]
        assert rule["enabled"] is enabled
        assert rule["definition"]["filters"]["prefixMatch"] == ["order-book/orders/"]
        assert rule["definition"]["actions"] == {"baseBlob": {"delete": {"daysAfterModificationGreaterThan": least}}}


def test_every_replication_that_may_be_chosen_is_deployed():
    (parameter,) = [s for s in parse(MAIN) if s.name == "storageReplication"]
    allowed = [value for _, value in parameter.decorators["allowed"][0][1]]
    assert {"Standard_RAGRS", "Standard_RAGZRS"} <= set(allowed)
    for replication in allowed:
        account = deploy(MAIN, REQUIRED | {"storageReplication": replication}).module("avm/res/storage/storage-account")
        assert account["skuName"] == replication


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_is_logged_and_no_metrics_with_it(name):
    module = deployment(name).module
    namespace, vault = module("avm/res/service-bus/namespace"), module("avm/res/key-vault/vault")
    account = module("avm/res/storage/storage-account")
    blobs = ["StorageDelete"] + (["StorageRead", "StorageWrite"] if name == "with everything" else [])
    for settings, categories in (
        (namespace["diagnosticSettings"], ["OperationalLogs"]),
        (vault["diagnosticSettings"], ["AuditEvent"]),
        (account["blobServices"]["diagnosticSettings"], blobs),
    ):
        (setting,) = settings
        assert setting["workspaceResourceId"] == "<workspace.resourceId>"
        assert [c["category"] for c in setting["logCategoriesAndGroups"]] == categories
        # Where the module is not told, it takes all metrics.
        assert setting["metricCategories"] == []


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_vault_and_the_telemetry(name):
    vault = deployment(name).module("avm/res/key-vault/vault")
    assert vault["enableRbacAuthorization"] and vault["enableSoftDelete"] and vault["enablePurgeProtection"]
    assert deployment(name).module("avm/res/insights/component")["disableLocalAuth"] is True


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_workbook_is_among_those_of_application_insights(name):
    (workbook,) = deployment(name).of_type("Microsoft.Insights/workbooks")
    assert workbook.body["properties"]["sourceId"] == "<insights.resourceId>"
    written = json.loads(workbook.body["properties"]["serializedData"])
    assert len([item for item in written["items"] if item["type"] == 3]) > 15


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_app(name):
    app = deployment(name).module("avm/res/web/site")
    assert app["httpsOnly"] is True
    assert {p["name"]: p["allow"] for p in app["basicPublishingCredentialsPolicies"]} == {"ftp": False, "scm": False}
    assert app["siteConfig"]["ftpsState"] == "Disabled"
    assert app["siteConfig"]["minTlsVersion"] == app["siteConfig"]["scmMinTlsVersion"] == "1.2"
    assert "cors" not in app["siteConfig"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_everything_is_tagged_with_the_environment(name):
    tagged = [r.body["tags"] for r in deployment(name).resources if "tags" in r.body]
    tagged += [m.params["tags"] for m in deployment(name).modules]
    assert len(tagged) > 12
    assert {t["azd-env-name"] for t in tagged} == {"prod"}


def alerts(name: str) -> dict:
    kinds = ("Microsoft.Insights/metricAlerts", "Microsoft.Insights/scheduledQueryRules")
    return {r.name.removeprefix("orderup-prod-"): r.body["properties"] for k in kinds for r in deployment(name).of_type(k)}


def test_the_alerts_are_those_of_the_documentation():
    text = (ROOT / "docs" / "AZURE.md").read_text()
    section = re.search(r"## Alerts\n(.*?)\n## ", text, re.S).group(1)
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([^`]+)`", " ".join(cells))) == sorted(alerts("with everything"))


def test_what_the_alerts_watch():
    found = alerts("with everything")
    metrics = {n: p["criteria"]["allOf"][0] for n, p in found.items() if "SingleResource" in p["criteria"].get("odata.type", "")}
    assert {n: (m["metricName"], m["timeAggregation"], m["threshold"]) for n, m in metrics.items()} == {
        "dead-letters": ("DeadletteredMessages", "Maximum", 0),
        "waiting-messages": ("ActiveMessages", "Minimum", 0),
        "scheduled-messages": ("ScheduledMessages", "Maximum", 500),
        "size": ("Size", "Maximum", 4 * 1024**3),
        "server-errors": ("ServerErrors", "Total", 0),
        "throttled-requests": ("ThrottledRequests", "Total", 0),
    }
    for metric in metrics.values():
        assert metric["dimensions"] == [{"name": "EntityName", "operator": "Include", "values": ["*"]}]
    assert {n: found[n]["windowSize"] for n in metrics if found[n]["windowSize"] != "PT5M"} == {"waiting-messages": "PT30M"}
    assert {n for n, p in found.items() if p["severity"] == 0} == {"does-not-start", "availability"}
    for alert in found.values():
        assert alert["enabled"] is True
        for document in re.findall(r"docs/[A-Z-]+\.md", alert["description"]):
            assert (ROOT / document).is_file(), document


def test_one_dead_letter_is_no_alert_on_failed_invocations():
    (criterion,) = alerts("with everything")["failed-invocations"]["criteria"]["allOf"]
    # Its failures are all of one function; a second one in the same window is more than the threshold.
    assert criterion["dimensions"] == [{"name": "Name", "operator": "Include", "values": ["*"]}]
    entities = topology()["Queues"] + [s for t in topology()["Topics"] for s in t["Subscriptions"]]
    deliveries = {e["Properties"]["MaxDeliveryCount"] for e in entities}
    assert criterion["operator"] == "GreaterThan" and {criterion["threshold"]} == deliveries


def test_the_availability_test_asks_what_only_the_handler_answers():
    deployed = deployment("with everything")
    (test,) = deployed.of_type("Microsoft.Insights/webtests")
    request, rules = test.body["properties"]["Request"], test.body["properties"]["ValidationRules"]
    base = deployed.outputs["ORDERUP_API_URL"]
    path = "/api" + request["RequestUrl"].removeprefix(base)
    operations = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    operation = operations["/api/problems/{name}"][request["HttpVerb"].lower()]
    (parameter,) = operation["parameters"]
    assert path.removeprefix("/api/problems/") in parameter["schema"]["enum"]
    assert str(rules["ExpectedHttpStatusCode"]) in operation["responses"]
    # It has no key.
    assert operation["security"] == [{}] and "Headers" not in request
    (anonymous,) = [f for f in functions().values() if f.get("route") == "problems/{name}"]
    assert anonymous["authLevel"] == "anonymous"

    alert = alerts("with everything")["availability"]
    insights = "<insights.resourceId>"
    assert alert["scopes"] == [test.id, insights]
    assert alert["criteria"] == {
        "odata.type": "Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria",
        "webTestId": test.id,
        "componentId": insights,
        "failedLocationCount": 3,
    }
    assert len({place["Id"] for place in test.body["properties"]["Locations"]}) == 5
    # Azure finds out by this tag to whom the test belongs.
    assert test.body["tags"][f"hidden-link:{insights}"] == "Resource"
    assert test.body["kind"] == test.body["properties"]["Kind"] == "standard"
    assert test.body["properties"]["Frequency"] == 15 * 60 and alert["windowSize"] == "PT15M"


def test_log_alerts_ask_for_words_that_the_handler_writes():
    queries = {n: p["criteria"]["allOf"][0]["query"] for n, p in alerts("with everything").items() if "displayName" in p}
    source = "".join(path.read_text() for path in (ROOT / "src").glob("*.rs"))
    assert 'line.outcome == "later" and toint(line.span.generation) >= 8' in queries["put-off-for-long"]
    assert '"later"' in (ROOT / "src" / "delivery_summary.rs").read_text()
    assert re.search(r"\boutcome( = |,)", source) and "generation = field::Empty" in source
    # The span is an object of the line, and the event's own fields are beside its level.
    assert ".with_current_span(true)" in source and ".flatten_event(true)" in source
    (words,) = re.findall(r'startswith "([^"]+)"', queries["does-not-start"])
    assert f'eprintln!("{words}: ' in source
    assert 'line.level == "ERROR"' in queries["error-lines"]


def test_somebody_is_told():
    (group,) = deployment("with everything").of_type("Microsoft.Insights/actionGroups")
    assert group.body["properties"]["emailReceivers"][0]["emailAddress"] == "operators@shop.example"
    for alert in alerts("with everything").values():
        actions = alert["actions"]
        ids = actions["actionGroups"] if isinstance(actions, dict) else [a["actionGroupId"] for a in actions]
        assert ids == [group.id]
    assert deployment("with nothing but what must be said").of_type("Microsoft.Insights/actionGroups") == []
