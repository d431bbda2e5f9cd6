"""The app's settings are ones that the handler or the host knows, and no secret is among them."""

import re
from itertools import chain

import pytest
from bicep_deployment import deploy
from bicep_syntax import parse
from project import DEPLOYMENTS, INFRA, MAIN, REQUIRED, ROOT, app_settings, deployment

# Read by the Functions host or by the platform, and not by the handler.
HOST = {
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}
# Only on the older plan; FlexConsumption refuses a deployment that has them.
CONSUMPTION = {
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_RUNTIME",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID",
}
SECRETS = {
    "SENDGRID_API_KEY",
    "RESEND_API_KEY",
    "SMTP_URL",
    "SQUARE_ACCESS_TOKEN",
    "TILL_TOKEN",
    "ORDER_TOKEN_SECRET",
    "BAKERY_SECRET",
    "FLORIST_SECRET",
}
# In the README's table, and not in the template.
BY_HAND = {
    "ServiceBusConnection": "a connection string; the template has an identity",
    "AzureWebJobsStorage": "a connection string; the template has an identity",
    "AzureWebJobsStorage__accountName": "the template names the service by its URL, which is right in every cloud",
    "ACS_CONNECTION_STRING": "the template has an identity",
    "AZURE_CLIENT_ID": "each connection has its own client id",
    "AZURE_FEDERATED_TOKEN_FILE": "Kubernetes",
    "AZURE_TOKEN_CREDENTIALS": "an operator's own machine",
    "SERVICEBUS_REST_ENDPOINT": "the local Service Bus",
    "SENDGRID_BASE_URL": "seldom",
    "RESEND_BASE_URL": "seldom",
    "VENDORS_FILE": "the package has vendors.json",
    "PARKED_VENDORS": "an emergency, see docs/OUTAGES.md",
    "HTTPS_PROXY": "there is none",
    "NO_PROXY": "there is none",
}


def source() -> str:
    return "".join(path.read_text() for path in (ROOT / "src").glob("*.rs"))


def is_read_by_the_handler(setting: str, text: str) -> bool:
    connection, _, suffix = setting.partition("__")
    composed = suffix in ("clientId", "credential") and f'"{{connection}}__{suffix}"' in text
    return f'"{setting}"' in text or (composed and f'"{connection}"' in text)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_setting_is_read_by_somebody(name):
    known = HOST | (CONSUMPTION if name == "on the older plan" else set())
    vendors = {"BAKERY_SECRET", "FLORIST_SECRET"}
    text = source()
    unknown = {s for s in app_settings(name).keys() - known - vendors if not is_read_by_the_handler(s, text)}
    assert unknown == set()


def test_every_setting_of_the_readme_can_be_given_or_is_set_by_hand():
    section = re.search(r"## Settings\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.S).group(1)
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    words = set(chain.from_iterable(re.findall(r"`([A-Za-z]+(?:_+[A-Za-z]+)*)`", "".join(row)) for row in rows))
    text = source()
    settings = {word for word in words if is_read_by_the_handler(word, text)} - {"EXTERNAL"}
    assert {"EMAIL_PROVIDER", "TILL_TOKEN", "ORDER_BOOK"} <= settings
    given = set().union(*(app_settings(name) for name in DEPLOYMENTS))
    # Values such as `acs` and `square` are words of the table too, and are read by the handler.
    # OpenTelemetry's own variables are off until somebody sets them, by hand.
    missing = {s for s in settings - given if s != s.lower() and not s.startswith("OTEL_")}
    assert missing == BY_HAND.keys() & settings, missing ^ (BY_HAND.keys() & settings)
    assert BY_HAND.keys() & given == set()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_only_the_older_plan_has_the_settings_of_the_older_plan(name):
    expected = CONSUMPTION if name == "on the older plan" else set()
    assert app_settings(name).keys() & CONSUMPTION == expected


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_no_setting_is_empty(name):
    assert [s for s, value in app_settings(name).items() if not value] == []


def test_a_secret_is_a_reference_to_the_vault():
    settings = app_settings("with everything")
    for setting in SECRETS:
        secret = setting.lower().replace("_", "-")
        assert settings[setting] == f"@Microsoft.KeyVault(SecretUri=<vault.uri>secrets/{secret})"
    assert not any("the " in value for value in settings.values() if isinstance(value, str))


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_no_name_is_no_reference(names):
    deployed = deploy(MAIN, REQUIRED | {"vendorSecretNames": names})
    (config,) = deployed.module("avm/res/web/site")["configs"]
    assert [s for s, value in config["properties"].items() if "KeyVault" in value or not s] == []


def test_secrets_that_were_given_are_in_the_vault_and_no_others():
    kind = "Microsoft.KeyVault/vaults/secrets"
    given = {s.name.split("/")[1]: s.body["properties"]["value"] for s in deployment("with everything").of_type(kind)}
    assert given == {
        "sendgrid-api-key": "the sendgrid key",
        "resend-api-key": "the resend key",
        "smtp-url": "the smtp url",
        "square-access-token": "the square token",
        "till-token": "the till token",
        "order-token-secret": "the order token secret",
    }
    assert deployment("with nothing but what must be said").of_type(kind) == []


@pytest.mark.parametrize("name", [n for n in DEPLOYMENTS if n != "with everything"])
def test_without_secrets_there_are_no_references(name):
    assert [s for s, value in app_settings(name).items() if "KeyVault" in value] == []


def test_parameters_with_secrets_are_secure():
    secure = {s.name for s in parse(MAIN) if "secure" in s.decorators}
    assert secure == {"sendgridApiKey", "resendApiKey", "smtpUrl", "squareAccessToken", "tillToken", "orderTokenSecret"}
    (secrets,) = [s for s in parse(INFRA / "app" / "vault.bicep") if s.name == "secrets"]
    assert "secure" in secrets.decorators
    # Nothing that comes out of a deployment can be a secret, either.
    texts = [str(s.value) for path in INFRA.rglob("*.bicep") for s in parse(path) if s.kind == "output"]
    assert len(texts) > 10
    assert not any(name in text for text in texts for name in secure | {"'secrets'"})


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_app_uses_its_identity_for_everything(name):
    settings, app = app_settings(name), deployment(name).module("avm/res/web/site")
    for connection in ("AzureWebJobsStorage", "ServiceBusConnection"):
        assert connection not in settings
        assert settings[f"{connection}__credential"] == "managedidentity"
        assert settings[f"{connection}__clientId"] == "<identity.clientId>"
    assert settings["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == "ClientId=<identity.clientId>;Authorization=AAD"
    assert app["managedIdentities"] == {"userAssignedResourceIds": ["<identity.resourceId>"]}
    assert app["keyVaultAccessIdentityResourceId"] == "<identity.resourceId>"


def test_the_plans():
    flex = deployment("with everything").module("avm/res/web/site")["functionAppConfig"]
    assert flex["runtime"] == {"name": "custom", "version": "1.0"}
    assert flex["deployment"]["storage"]["authentication"]["type"] == "UserAssignedIdentity"
    assert flex["scaleAndConcurrency"] == {
        "instanceMemoryMB": 2048,
        "maximumInstanceCount": 100,
        "alwaysReady": [{"name": "http", "instanceCount": 2}],
        "triggers": {"http": {"perInstanceConcurrency": 100}},
    }
    assert deployment("with everything").module("avm/res/web/serverfarm")["skuName"] == "FC1"
    older = deployment("on the older plan")
    assert older.module("avm/res/web/site")["functionAppConfig"] is None
    assert older.module("avm/res/web/serverfarm")["skuName"] == "Y1"
    assert app_settings("on the older plan")["WEBSITE_RUN_FROM_PACKAGE"].endswith("packages/orderup.zip")
