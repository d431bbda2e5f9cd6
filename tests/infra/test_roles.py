"""The table of roles in docs/AZURE.md is what the template assigns, and the other way round."""

import re

import pytest
from project import DEPLOYMENTS, ROOT, deployment, functions, leaf

ASSIGNMENT = "Microsoft.Authorization/roleAssignments"
WHO = {"<identity.principalId>": "app", "deployer": "deployer"}
# Where an assignment is, in the table's words; for the others the name follows.
PLACES = {
    "Microsoft.Storage/storageAccounts": "storage account",
    "Microsoft.KeyVault/vaults": "key vault",
    "Microsoft.Insights/components": "Application Insights",
    "Microsoft.Communication/communicationServices": "Communication Services",
}
NAMED = {
    "Microsoft.ServiceBus/namespaces/topics": "topic",
    "Microsoft.ServiceBus/namespaces/queues": "queue",
    "Microsoft.ServiceBus/namespaces/topics/subscriptions": "subscription",
    "Microsoft.Storage/storageAccounts/blobServices/containers": "container",
}
# Microsoft's: learn.microsoft.com/azure/role-based-access-control/built-in-roles
NAMES = {
    "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39": "Azure Service Bus Data Sender",
    "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0": "Azure Service Bus Data Receiver",
    "090c5cfd-751d-490a-894a-3ce6f1109419": "Azure Service Bus Data Owner",
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "09976791-48a7-449e-bb21-39d1a415f350": "Communication and Email Service Owner",
}


def place(scope) -> str:
    kind = scope.type.split("@")[0]
    return PLACES.get(kind) or f"{NAMED[kind]} {scope.name.rsplit('/', 1)[1]}"


def assigned(name: str) -> set:
    """(who, role's id, where) of each assignment."""
    found = set()
    for assignment in deployment(name).of_type(ASSIGNMENT):
        properties = assignment.body["properties"]
        role = properties["roleDefinitionId"].removeprefix("Microsoft.Authorization/roleDefinitions/")
        found.add((WHO[properties["principalId"]], role, place(assignment.body["scope"])))
    return found


def table() -> dict:
    text = (ROOT / "docs" / "AZURE.md").read_text()
    section = re.search(r"## Roles\n(.*?)\n## ", text, re.S).group(1)
    rows = {}
    for line in section.splitlines():
        if line.startswith(("| app", "| deployer")):
            who, role, identifier, where, why = (cell.strip() for cell in line.strip("|").split("|"))
            identifier = identifier.strip("`")
            assert NAMES[identifier] == role
            assert why
            names = re.findall(r"`([^`]+)`", where)
            word = where.split(" `")[0].removesuffix("s") if names else where
            for scope in [f"{word} {name}" for name in names] or [word]:
                assert (who, identifier, scope) not in rows, f"{role} on {scope} is there twice"
                rows[(who, identifier, scope)] = why
    return rows


def test_every_assignment_is_in_the_table_and_every_row_is_assigned():
    everything = set().union(*(assigned(name) for name in DEPLOYMENTS))
    assert everything == table().keys()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_nobody_has_a_role_on_more_than_one_thing(name):
    for assignment in deployment(name).of_type(ASSIGNMENT):
        kind = assignment.body["scope"].type.split("@")[0]
        assert kind in PLACES or kind in NAMED, f"{assignment.symbol} is on {kind}"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_an_assignments_name_is_made_of_what_it_says(name):
    for assignment in deployment(name).of_type(ASSIGNMENT):
        properties = assignment.body["properties"]
        role = properties["roleDefinitionId"].rsplit("/", 1)[1]
        # Another one under the same name is an error, and one under another name is a second one.
        assert assignment.name == f"guid({assignment.body['scope'].id}, {properties['principalId']}, {role})"


def test_the_app_receives_from_what_triggers_its_functions():
    triggers = [f for f in functions().values() if f["type"] == "serviceBusTrigger"]
    places = {f"queue {f['queueName']}" if "queueName" in f else f"subscription {f['subscriptionName']}" for f in triggers}
    receiver = "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0"
    assert {where for _, role, where in assigned("on the older plan") if role == receiver} == places


def test_what_a_deployment_does_not_need_is_not_given():
    owner, email, officer, contributor = (
        next(i for i, n in NAMES.items() if n == name)
        for name in (
            "Azure Service Bus Data Owner",
            "Communication and Email Service Owner",
            "Key Vault Secrets Officer",
            "Storage Blob Data Contributor",
        )
    )

    def roles(name):
        return {role for _, role, _ in assigned(name)}

    assert owner not in roles("on the older plan")
    assert email not in roles("with everything")
    assert {officer, contributor} & roles("with nothing but what must be said") == set()
    assert contributor not in roles("with everything")


def test_the_roles_that_operators_give_themselves_are_on_what_there_is():
    text = (ROOT / "docs" / "AZURE.md").read_text()
    section = re.search(r"## Roles\n(.*?)\n## ", text, re.S).group(1)
    given = re.findall(r"az role assignment create .* --role '([^']+)' --scope \"([^\"]+)\"", section)
    assert given == [
        ("Azure Service Bus Data Receiver", "$bus"),
        ("Azure Service Bus Data Sender", "$bus/topics/orders"),
        ("Storage Blob Data Reader", "$blobs/containers/order-book"),
    ]
    deployed = deployment("with everything")
    assert "orders" in {leaf(topic) for topic in deployed.of_type("Microsoft.ServiceBus/namespaces/topics")}
    containers = deployed.module("avm/res/storage/storage-account")["blobServices"]["containers"]
    assert "order-book" in {container["name"] for container in containers}
