"""The hooks, with a stand-in for the Azure CLI that says what each subscription has, and writes down what it is told."""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from project import INFRA, ROOT

AZ = r"""#!/usr/bin/env python3
import json, os, sys
arguments = sys.argv[1:]
state_file = os.environ["AZ_STATE"]
state = json.load(open(state_file))
option = lambda name: arguments[arguments.index(name) + 1]
state["calls"].append(arguments)
status = 0
if arguments[:2] == ["account", "show"]:
    status = state["login"]
elif arguments[:5] == ["servicebus", "topic", "subscription", "rule", "list"]:
    assert option("--query") == "[].name" and option("--output") == "tsv"
    print("\n".join(state["rules"][option("--subscription-name")]))
elif arguments[:5] == ["servicebus", "topic", "subscription", "rule", "delete"]:
    if state["deletes"]:
        state["rules"][option("--subscription-name")].remove(option("--name"))
elif arguments[:3] == ["storage", "blob", "upload"]:
    status = state["upload"]
json.dump(state, open(state_file, "w"))
sys.exit(status)
"""

ENVIRONMENT = {
    "AZURE_SUBSCRIPTION_ID": "0000",
    "AZURE_RESOURCE_GROUP": "rg-prod",
    "ORDERUP_SERVICE_BUS": "sbns-1",
    "ORDERUP_SERVICE_BUS_RULES": "orders/customers/customers orders/vendors/vendors",
    "ORDERUP_APP": "func-1",
    "ORDERUP_HOSTING_PLAN": "FlexConsumption",
    "ORDERUP_API_URL": "https://func-1.azurewebsites.net/api",
    "ORDERUP_STORAGE_ACCOUNT": "st1",
    "ORDERUP_PACKAGE_CONTAINER": "packages",
}
FINE = {"customers": ["customers"], "vendors": ["vendors"]}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "bin").mkdir()
    az = tmp_path / "bin" / "az"
    az.write_text(AZ)
    az.chmod(0o755)
    state_file = tmp_path / "state.json"

    def run(hook: str, environment: dict | None = None, **state):
        start = {"calls": [], "login": 0, "rules": FINE, "deletes": True, "upload": 0} | state
        state_file.write_text(json.dumps(start))
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path, "AZ_STATE": str(state_file)} | ENVIRONMENT | (environment or {})
        done = subprocess.run(
            ["sh", INFRA / "hooks" / f"{hook}.sh"], env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        return done, json.loads(state_file.read_text())

    return run


def package(folder: Path, mode: int) -> str:
    path = folder / "orderup.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("orderup")
        entry.create_system = 3
        entry.external_attr = (0o100000 | mode) << 16
        archive.writestr(entry, b"\x7fELF")
        archive.writestr("host.json", "{}")
    return str(path)


def deleted(state: dict) -> list:
    return [call for call in state["calls"] if "delete" in call]


def test_rules_that_are_as_they_should_be_are_left_alone(run):
    done, state = run("postprovision")
    assert done.returncode == 0, done.stderr
    assert deleted(state) == []
    assert done.stdout.splitlines() == [f"subscription {s}: rule {s} and no other" for s in ("customers", "vendors")]
    for call in state["calls"]:
        assert call[call.index("--subscription") + 1] == "0000"


def test_a_default_rule_that_is_left_is_removed(run):
    done, state = run("postprovision", rules={"customers": ["$Default", "customers"], "vendors": ["vendors", "$Default"]})
    assert done.returncode == 0, done.stderr
    assert state["rules"] == FINE
    for call, subscription in zip(deleted(state), ("customers", "vendors"), strict=True):
        assert call[call.index("--name") + 1] == "$Default"
        assert call[call.index("--subscription-name") + 1] == subscription
        assert call[call.index("--topic-name") + 1] == "orders"


@pytest.mark.parametrize("rules", [[], ["$Default"], ["$Default", "customer"]], ids=str)
def test_without_its_own_rule_nothing_is_removed_and_it_fails(run, rules):
    done, state = run("postprovision", rules={"customers": rules, "vendors": ["vendors"]})
    assert done.returncode == 1
    assert "the subscription customers has no rule customers" in done.stderr
    assert deleted(state) == []


def test_a_rule_of_somebody_else_is_a_failure(run):
    done, state = run("postprovision", rules={"customers": ["customers", "everything"], "vendors": ["vendors"]})
    assert done.returncode == 1
    assert "the subscription customers has other rules than customers" in done.stderr
    assert deleted(state) == []


def test_a_default_rule_that_stays_is_a_failure(run):
    done, _ = run("postprovision", rules={"customers": ["customers", "$Default"], "vendors": ["vendors"]}, deletes=False)
    assert done.returncode == 1
    assert "$Default" in done.stderr


@pytest.mark.parametrize("hook", ["postprovision", "postdeploy"])
def test_who_is_not_logged_in_is_told_so(run, tmp_path, hook):
    done, state = run(hook, {"ORDERUP_PACKAGE": package(tmp_path, 0o755)}, login=1)
    assert done.returncode == 1
    assert "az login" in done.stderr
    assert len(state["calls"]) == 1


def test_flex_consumption_takes_the_package_as_it_is(run, tmp_path):
    path = package(tmp_path, 0o755)
    done, state = run("postdeploy", {"ORDERUP_PACKAGE": path})
    assert done.returncode == 0, done.stderr
    (call,) = state["calls"][1:]
    assert call[:4] == ["functionapp", "deployment", "source", "config-zip"]
    assert call[call.index("--src") + 1] == path
    assert call[call.index("--name") + 1] == "func-1" and call[call.index("--resource-group") + 1] == "rg-prod"
    assert "API: https://func-1.azurewebsites.net/api" in done.stdout


def test_the_older_plan_gets_it_into_its_container_and_is_told(run, tmp_path):
    path = package(tmp_path, 0o755)
    done, state = run("postdeploy", {"ORDERUP_PACKAGE": path, "ORDERUP_HOSTING_PLAN": "Consumption"})
    assert done.returncode == 0, done.stderr
    upload, restart, sync = state["calls"][1:]
    assert upload[:3] == ["storage", "blob", "upload"] and "--overwrite" in upload
    assert upload[upload.index("--auth-mode") + 1] == "login"
    assert upload[upload.index("--container-name") + 1] == "packages" and upload[upload.index("--name") + 1] == "orderup.zip"
    assert restart[:2] == ["functionapp", "restart"]
    assert sync[:3] == ["rest", "--method", "post"] and "/sites/func-1/syncfunctiontriggers" in sync[-1]


def test_a_package_that_was_not_uploaded_restarts_nothing(run, tmp_path):
    environment = {"ORDERUP_PACKAGE": package(tmp_path, 0o755), "ORDERUP_HOSTING_PLAN": "Consumption"}
    done, state = run("postdeploy", environment, upload=1)
    assert done.returncode == 1
    assert "was not uploaded" in done.stderr
    assert not any("restart" in call for call in state["calls"])


def test_a_handler_that_cannot_be_started_is_not_published(run, tmp_path):
    done, state = run("postdeploy", {"ORDERUP_PACKAGE": package(tmp_path, 0o644)})
    assert done.returncode == 1
    assert "no run bit" in done.stderr
    assert not any("config-zip" in call for call in state["calls"])


@pytest.mark.parametrize("hook", ["predeploy", "postdeploy"])
def test_a_package_that_is_not_there_is_told(run, hook):
    done, _ = run(hook, {"ORDERUP_PACKAGE": "nowhere.zip"})
    assert done.returncode == 1
    assert "nowhere.zip" in done.stderr


def test_a_package_that_exists_is_not_made(run, tmp_path):
    done, _ = run("predeploy", {"ORDERUP_PACKAGE": package(tmp_path, 0o755)})
    assert done.returncode == 0, done.stderr


STD = "lib/rustlib/x86_64-unknown-linux-gnu/lib"
SAMPLES = (ROOT / "vendors.json").read_text()


@pytest.fixture
def build(run, tmp_path):
    """Runs predeploy in a project whose tools write down that they ran, and where only `rustup target add` makes Rust's std."""

    def tool(path: str, script: str):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / path).chmod(0o755)

    def build(std: bool, rustup: str | None, vendors: str = "[]"):
        tool("bin/cargo", "exit 1")
        tool("bin/rustc", f'[ "$*" = "--print target-libdir --target x86_64-unknown-linux-gnu" ] && echo "{tmp_path}/{STD}"')
        if rustup is not None:
            tool("bin/rustup", f'echo "rustup $*" >>"{tmp_path}/ran"\n{rustup}')
        tool("packaging/zig", "echo zig >>ran")
        tool("target/zig/bin/just", 'echo "just $*" >>ran')
        (tmp_path / STD).mkdir(parents=True)
        if std:
            (tmp_path / STD / "libstd-0.rlib").touch()
        (tmp_path / "vendors.json").write_text(vendors)
        done, _ = run("predeploy")
        ran = tmp_path / "ran"
        return done, ran.read_text().splitlines() if ran.exists() else []

    return build


def test_the_package_is_made_where_rust_has_what_it_needs(build):
    done, ran = build(std=True, rustup=None)
    assert done.returncode == 0, done.stderr
    assert ran == ["zig", "just package-x86-64"]
    assert "WARNING" not in done.stderr


def test_what_rust_lacks_is_installed_first(build, tmp_path):
    done, ran = build(std=False, rustup=f'touch "{tmp_path}/{STD}/libstd-0.rlib"')
    assert done.returncode == 0, done.stderr
    assert ran == ["rustup target add x86_64-unknown-linux-gnu", "zig", "just package-x86-64"]


@pytest.mark.parametrize("rustup", ["exit 1", "true"], ids=["rustup fails", "it adds it to another Rust"])
def test_without_what_rust_needs_nothing_is_made(build, rustup):
    done, ran = build(std=False, rustup=rustup)
    assert done.returncode == 1
    assert ran == ["rustup target add x86_64-unknown-linux-gnu"]


def test_without_rustup_it_is_said_what_to_do(build, tmp_path, monkeypatch):
    # No rustup of this machine, but what the hook may use.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "ls", "grep", "cat", "env", "python3"):
        (tools / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tools))
    done, ran = build(std=False, rustup=None)
    assert done.returncode == 1
    assert ran == []
    assert "no standard library for x86_64-unknown-linux-gnu" in done.stderr and "rustup" in done.stderr


def test_sample_vendors_are_a_plain_warning_and_no_failure(build):
    done, ran = build(std=True, rustup=None, vendors=SAMPLES)
    assert done.returncode == 0, done.stderr
    assert "WARNING: vendors.json has the sample vendors" in done.stderr
    assert ran[-1] == "just package-x86-64"


def test_sample_vendors_in_a_package_that_exists_are_seen(run, tmp_path):
    path = package(tmp_path, 0o755)
    assert "WARNING" not in run("predeploy", {"ORDERUP_PACKAGE": path})[0].stderr
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("vendors.json", SAMPLES)
    done, _ = run("predeploy", {"ORDERUP_PACKAGE": path})
    assert done.returncode == 0
    assert "WARNING: vendors.json has the sample vendors" in done.stderr


def test_an_unknown_plan_is_refused(run, tmp_path):
    done, _ = run("postdeploy", {"ORDERUP_PACKAGE": package(tmp_path, 0o755), "ORDERUP_HOSTING_PLAN": "Premium"})
    assert done.returncode == 1
    assert "Premium" in done.stderr
