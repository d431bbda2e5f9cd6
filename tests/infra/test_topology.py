"""What Azure gets is what servicebus.json says, and no more."""

import re

import pytest
from project import DEPLOYMENTS, INFRA, deployment, functions, leaf, topology

SERVICE_BUS = "Microsoft.ServiceBus/namespaces"
# What servicebus.json cannot say, because the emulator's format has no word for it.
SUBSCRIPTION_ONLY_IN_AZURE = {"deadLetteringOnFilterEvaluationExceptions": True}
ENTITY_ONLY_IN_AZURE = {"maxSizeInMegabytes": 5120}


def azure(properties: dict) -> dict:
    """The emulator's properties in Azure's words: `ForwardTo` is `forwardTo`, and empty is nothing."""
    return {name[0].lower() + name[1:]: (None if value == "" else value) for name, value in properties.items()}


def entities(kind: str) -> dict:
    return {r.name.split("/", 1)[1]: r.body["properties"] for r in deployment(next(iter(DEPLOYMENTS))).of_type(kind)}


def subscriptions():
    for topic in topology()["Topics"]:
        for subscription in topic["Subscriptions"]:
            yield f"{topic['Name']}/{subscription['Name']}", subscription


def test_queues():
    expected = {q["Name"]: azure(q["Properties"]) | ENTITY_ONLY_IN_AZURE for q in topology()["Queues"]}
    assert entities(f"{SERVICE_BUS}/queues") == expected


def test_topics():
    expected = {t["Name"]: azure(t["Properties"]) | ENTITY_ONLY_IN_AZURE for t in topology()["Topics"]}
    assert entities(f"{SERVICE_BUS}/topics") == expected


def test_subscriptions():
    expected = {name: azure(s["Properties"]) | SUBSCRIPTION_ONLY_IN_AZURE for name, s in subscriptions()}
    assert entities(f"{SERVICE_BUS}/topics/subscriptions") == expected


def test_rules():
    expected = {
        f"{name}/{rule['Name']}": {
            "filterType": "SqlFilter",
            "sqlFilter": {"sqlExpression": rule["Properties"]["SqlFilter"]["SqlExpression"]},
            "action": {"sqlExpression": rule["Properties"]["Action"]["SqlExpression"]},
        }
        for name, subscription in subscriptions()
        for rule in subscription["Rules"]
    }
    assert entities(f"{SERVICE_BUS}/topics/subscriptions/rules") == expected


def test_each_subscription_has_one_rule_which_is_not_the_default_one():
    for name, subscription in subscriptions():
        (rule,) = subscription["Rules"]
        assert rule["Name"] != "$Default", name
        assert rule["Properties"].keys() == {"FilterType", "SqlFilter", "Action"}, name
        assert rule["Properties"]["FilterType"] == "Sql", name


def test_the_hook_looks_at_every_rule():
    rules = [f"{name}/{rule['Name']}" for name, subscription in subscriptions() for rule in subscription["Rules"]]
    assert deployment(next(iter(DEPLOYMENTS))).outputs["ORDERUP_SERVICE_BUS_RULES"].split() == rules


def test_no_part_of_the_file_is_passed_over():
    namespace = topology()
    assert namespace.keys() == {"Name", "Queues", "Topics"}
    assert all(queue.keys() == {"Name", "Properties"} for queue in namespace["Queues"])
    assert all(topic.keys() == {"Name", "Properties", "Subscriptions"} for topic in namespace["Topics"])
    assert all(subscription.keys() == {"Name", "Properties", "Rules"} for _, subscription in subscriptions())


def test_what_is_forwarded_to_is_there_before():
    text = (INFRA / "app" / "servicebus.bicep").read_text()
    order = {}
    for name, dependencies in re.findall(r"^resource (\w+).*?dependsOn: \[(.*?)\]", text, re.S | re.M):
        order[name] = dependencies.split()
    assert order == {
        "queue": ["namespace"],
        "topic": ["namespace"],
        "subscription": ["queue", "topic"],
        "rule": ["subscription"],
    }


def test_the_functions_triggers_are_entities():
    queues = {q["Name"] for q in topology()["Queues"]}
    names = {name for name, _ in subscriptions()}
    triggers = [f for f in functions().values() if f["type"] == "serviceBusTrigger"]
    assert len(triggers) == 4
    for trigger in triggers:
        if "queueName" in trigger:
            assert trigger["queueName"] in queues
        else:
            assert f"{trigger['topicName']}/{trigger['subscriptionName']}" in names


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_namespace_takes_identities_only(name):
    namespace = deployment(name).module("avm/res/service-bus/namespace")
    assert namespace["skuObject"] == {"name": "Standard"}
    assert namespace["disableLocalAuth"] is True
    assert namespace["authorizationRules"] == []
    assert namespace["minimumTlsVersion"] == "1.2"
    # The entities are this project's own resources, so that no default of the module has a say.
    assert not namespace.keys() & {"queues", "topics"}
    assert {leaf(t) for t in deployment(name).of_type(f"{SERVICE_BUS}/topics")} == {"orders"}
