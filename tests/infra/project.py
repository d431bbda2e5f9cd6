"""Where things are, and the deployments that the tests look at."""

import json
from functools import cache
from pathlib import Path

from bicep_deployment import Deployment, Resource, deploy

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
MAIN = INFRA / "main.bicep"

REQUIRED = {"environmentName": "prod", "location": "westeurope"}

# What every parameter does is seen in at least one of these.
DEPLOYMENTS = {
    "with nothing but what must be said": {},
    "with everything": {
        "principalId": "deployer",
        "principalType": "ServicePrincipal",
        "instanceMemoryMB": 2048,
        "alwaysReadyInstances": 2,
        "orderBookRetentionDays": 400,
        "alertEmail": "operators@shop.example",
        "emailProvider": "sendgrid",
        "emailFrom": "orders@shop.example",
        "emailReplyTo": "help@shop.example",
        "emailRateLimit": "2/s",
        "till": "square",
        "vendorNotifyOn": "placed",
        "squareLocationId": "L88917AVBK2S5",
        "squareBaseUrl": "https://connect.squareupsandbox.com",
        "tillUrl": "https://till.shop.example",
        "tillLocationId": "1",
        "retrySchedule": "1m,5m",
        "retryDeadline": "24h",
        "acsEndpoint": "https://shop.communication.azure.com",
        "sendgridApiKey": "the sendgrid key",
        "resendApiKey": "the resend key",
        "smtpUrl": "the smtp url",
        "squareAccessToken": "the square token",
        "tillToken": "the till token",
        "orderTokenSecret": "the order token secret",
        "storageAccessLog": True,
        "vendorSecretNames": "BAKERY_SECRET,, FLORIST_SECRET, ",
    },
    "on the older plan": {"hostingPlan": "Consumption", "principalId": "deployer", "targetBasedScaling": False},
}


@cache
def deployment(name: str) -> Deployment:
    return deploy(MAIN, REQUIRED | DEPLOYMENTS[name])


def app_settings(name: str) -> dict:
    (config,) = [c for c in deployment(name).module("avm/res/web/site")["configs"] if c["name"] == "appsettings"]
    return config["properties"]


def topology() -> dict:
    (namespace,) = json.loads((ROOT / "servicebus.json").read_text())["UserConfig"]["Namespaces"]
    return namespace


def functions() -> dict[str, dict]:
    """The first binding of each function, which is its trigger, by the function's name."""
    return {f.parent.name: json.loads(f.read_text())["bindings"][0] for f in ROOT.glob("*/function.json")}


def leaf(resource: Resource) -> str:
    return resource.name.rsplit("/", 1)[-1]
