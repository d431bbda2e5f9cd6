"""The documents of the HTTP API, of the messages and of the webhooks, read by other people's software."""

import copy
import json
import subprocess

import pytest

from loopback import request
from prism import PrismProxy
from server_process import INTEROP, node_environment

DOCS = INTEROP.parents[1] / "docs"
NAMES = ["openapi.json", "vendor.openapi.json", "till.openapi.json", "asyncapi.json"]


def document(name: str) -> dict:
    return json.loads((DOCS / name).read_text())


def validate(document: dict) -> subprocess.CompletedProcess:
    validated = subprocess.run(
        ["node", INTEROP / "validate.mjs"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        env=node_environment(),
    )
    assert validated.returncode in (0, 3), validated.stderr
    return validated


@pytest.mark.parametrize("name", NAMES)
def test_the_document_is_one(name):
    validated = validate(document(name))
    assert validated.returncode == 0, validated.stderr


# What the validators must refuse, so that their silence about our documents means something.
@pytest.mark.parametrize(
    ("name", "path", "broken"),
    [
        ("openapi.json", ["info", "title"], None),
        ("openapi.json", ["paths", "/api/checkout", "post", "responses", "202", "description"], None),
        ("openapi.json", ["paths", "/api/checkout", "post", "parameters"], [{"in": "head", "name": "a"}]),
        ("vendor.openapi.json", ["webhooks", "order.placed", "post", "requestBody", "content"], None),
        ("asyncapi.json", ["operations", "putOff", "action"], "deliver"),
        ("asyncapi.json", ["channels", "orders", "address"], 7),
        ("asyncapi.json", ["components", "messages", "orderPlaced", "payload", "type"], "event"),
        ("asyncapi.json", ["servers", "bus", "protocol"], None),
    ],
)
def test_a_broken_document_is_known(name, path, broken):
    changed = copy.deepcopy(document(name))
    *parents, member = path
    within = changed
    for parent in parents:
        within = within[parent]
    if broken is None:
        del within[member]
    else:
        within[member] = broken
    assert validate(changed).returncode == 3


@pytest.fixture
def shop(start_orderup, tmp_path):
    settings = {"ORDER_BOOK": f"{tmp_path}/order-book/", "ORDER_TOKEN_SECRET": "0123456789abcdef0123456789abcdef"}
    handler = start_orderup(settings)
    with PrismProxy(DOCS / "openapi.json", f"http://127.0.0.1:{handler.port}") as proxy:
        yield proxy


KEY = {"x-functions-key": "a-key"}


def test_a_client_and_the_handler_keep_to_the_document_as_prism_reads_it(shop):
    operation = document("openapi.json")["paths"]["/api/checkout"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        placed = request("POST", f"{shop.url}/api/checkout", example["value"], KEY)
        assert placed.status == 202, placed
    links = placed.json()["links"]
    told = request("GET", shop.url + links["self"], headers=KEY)
    assert (told.status, told.json()["status"]) == (200, "accepted"), told
    told = request("GET", shop.url + links["status"])
    assert told.status == 200, told
    # Not told by the schema, and so the handler's to refuse.
    mixed = copy.deepcopy(examples["order"]["value"])
    mixed["lineItems"][1]["unitPrice"]["currency"] = "EUR"
    refused = request("POST", f"{shop.url}/api/checkout", mixed, KEY)
    assert (refused.status, refused.json()["type"]) == (422, "/api/problems/invalid-fields"), refused
    page = request("GET", shop.url + refused.json()["type"])
    assert page.status == 200, page


def test_prism_knows_a_request_that_is_not_in_the_document(shop):
    for body, headers, status in [({}, KEY, 422), ({"customer": 7}, KEY, 422), ({}, {}, 401)]:
        refused = request("POST", f"{shop.url}/api/checkout", body, headers)
        assert refused.status == status, refused
        assert refused.json()["type"].startswith("https://stoplight.io/prism/errors#"), refused
