"""Settings that somebody reads, secrets that are only named, and vendors that the handler would take."""

import json
import re

import yaml
from conftest import EXAMPLE, ROOT, container, pod
from settings_read import is_read

SECRET_NAMES = re.compile(r"TOKEN|SECRET$|PASSWORD|_KEY$|CONNECTION_STRING|^SMTP_URL$|^ServiceBusConnection$|^AzureWebJobsStorage$")
# Azure's keys and SAS, webhook secrets, private keys, Square's tokens.
SECRET_VALUES = re.compile(
    r"AccountKey=|SharedAccessKey=(?!SAS_KEY_VALUE)|whsec_|sig=|BEGIN [A-Z ]*PRIVATE KEY|\bEAAA|\bSG\.|\bre_[A-Za-z0-9]{8}|://[^/\s:@]+:[^@\s]+@"
)


def secret_class(manifests) -> dict:
    return manifests.kind("SecretProviderClass")["orderup-secrets"]["spec"]


def secret_variables(manifests) -> dict[str, str]:
    """Variable and secret of the key vault."""
    (secret,) = secret_class(manifests)["secretObjects"]
    return {entry["key"]: entry["objectName"] for entry in secret["data"]}


def vendors() -> list[dict]:
    return json.loads((EXAMPLE / "vendors.json").read_text())


def test_every_setting_is_read_by_somebody(settings):
    assert "ServiceBusConnection__fullyQualifiedNamespace" in settings
    assert {name for name in settings if not is_read(name)} == set()
    assert not is_read("NOT_A_SETTING") and not is_read("ServiceBusConnection__nothing")


def test_every_secret_variable_is_read_by_the_handler_or_named_by_a_vendor(manifests):
    named = {s.removeprefix("env:") for vendor in vendors() for s in vendor["secrets"]}
    for name in secret_variables(manifests):
        assert is_read(name) or name in named, name


def test_the_secrets_that_vendors_name_are_there(manifests):
    for vendor in vendors():
        assert vendor["secrets"] and vendor["url"].startswith("https://")
        for secret in vendor["secrets"]:
            assert secret.startswith("env:"), "a secret is a reference"
            assert secret.removeprefix("env:") in secret_variables(manifests)


def test_a_secret_variable_is_fetched_from_the_vault(manifests):
    objects = yaml.safe_load(secret_class(manifests)["parameters"]["objects"])["array"]
    fetched = [yaml.safe_load(one) for one in objects]
    assert {one["objectType"] for one in fetched} == {"secret"}
    assert sorted(one["objectName"] for one in fetched) == sorted(secret_variables(manifests).values())


def test_no_setting_is_secret_and_no_secret_is_in_the_repository(manifests, settings):
    assert not [name for name in settings if SECRET_NAMES.search(name)]
    assert "Secret" not in {m["kind"] for m in manifests}
    for path in sorted((ROOT / "deploy").rglob("*")):
        if path.is_file():
            found = SECRET_VALUES.search(path.read_text())
            assert not found, f"{path}: {found}"
    for sample in ("AccountKey=abc", "whsec_abc", "smtps://user:password@host", "SharedAccessKey=abc"):
        assert SECRET_VALUES.search(sample)


def test_every_pod_gets_the_settings_the_secrets_and_the_vendors(manifests, deployments, settings):
    maps, classes = manifests.kind("ConfigMap"), manifests.kind("SecretProviderClass")
    (secret,) = secret_class(manifests)["secretObjects"]
    for deployment in deployments.values():
        sources = container(deployment)["envFrom"]
        (config,) = [s["configMapRef"]["name"] for s in sources if "configMapRef" in s]
        assert maps[config]["data"] == settings
        assert [s["secretRef"]["name"] for s in sources if "secretRef" in s] == [secret["secretName"]]
        mounts = {m["name"]: m["mountPath"] for m in container(deployment)["volumeMounts"]}
        volumes = {v["name"]: v for v in pod(deployment)["volumes"]}
        # Without the mount the driver would take the Secret away.
        assert volumes["secrets"]["csi"]["volumeAttributes"]["secretProviderClass"] in classes and "secrets" in mounts
        (file,) = maps[volumes["vendors"]["configMap"]["name"]]["data"]
        assert f"{mounts['vendors']}/{file}" == settings["VENDORS_FILE"]


def test_nothing_of_the_base_is_left_to_be_filled_in(manifests, settings):
    """Each value of values.yaml arrives where the base has none."""
    values = yaml.safe_load((EXAMPLE / "values.yaml").read_text())["data"]
    text = json.dumps(manifests)
    for value in values.values():
        assert value in text
    assert "00000000-0000" not in text
    assert "replace-me" not in text
    assert settings["ServiceBusConnection__fullyQualifiedNamespace"] == f"{values['serviceBusNamespace']}.servicebus.windows.net"
    for scaled in manifests.kind("ScaledObject").values():
        assert scaled["spec"]["triggers"][0]["metadata"]["namespace"] == values["serviceBusNamespace"]
    for secrets in manifests.kind("SecretProviderClass").values():
        parameters = secrets["spec"]["parameters"]
        assert (parameters["clientID"], parameters["keyvaultName"], parameters["tenantID"]) == (
            values["appClientId"],
            values["keyVault"],
            values["tenantId"],
        )
    assert settings["AzureWebJobsSecretStorageKeyVaultUri"] == values["keyVaultUri"]
    assert values["keyVaultUri"] == f"https://{values['keyVault']}.vault.azure.net/"


def test_the_page_makes_each_function_key_and_each_secret(manifests, functions):
    """The host cannot write to the vault, so a key that nobody made is an error of the first request."""
    page = (ROOT / "docs/KUBERNETES.md").read_text()

    def normalised(name: str) -> str:
        return re.sub(r"[^A-Za-z0-9]", lambda found: f"-{ord(found.group()):03}", name)

    keys = {f"function--{normalised(f)}--default" for f, t in functions.items() if t["type"] == "httpTrigger"}
    assert "function--order-045status--default" in keys
    for key in keys | {"host--masterKey--master", "host--functionKey--default"}:
        assert re.search(rf"[ (]{key}[ ;]", page), key
    for secret in secret_variables(manifests).values():
        assert f"--name {secret} " in page
