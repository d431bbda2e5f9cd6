"""The Dockerfile, read and not built: no container runtime is needed here."""

import json
import re

from conftest import ROOT
from settings_read import is_read

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
IGNORED = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument, lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    return [tuple(line.split(None, 1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    split: list[list[tuple[str, str]]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            split.append([])
        split[-1].append(instruction)
    return split


def final(name: str) -> list[str]:
    return [argument for instruction, argument in stages()[-1] if instruction == name]


def context() -> set[str]:
    return {line.removeprefix("!") for line in IGNORED if line.startswith("!")}


def test_it_has_two_stages_and_each_image_is_as_fixed_as_can_be_known():
    build, host = stages()
    assert re.fullmatch(r"--platform=\$BUILDPLATFORM rust:1\.\d+-slim-bookworm@sha256:[0-9a-f]{64} AS build", build[0][1])
    # No digest of it could be verified when this was written; an operator appends one, which this allows.
    assert re.fullmatch(r"mcr\.microsoft\.com/azure-functions/node:4-node24(@sha256:[0-9a-f]{64})?", host[0][1])


def test_the_builder_is_new_enough_and_links_as_the_package_does():
    oldest = re.search(r'^rust-version = "(\d+)\.(\d+)', (ROOT / "Cargo.toml").read_text(), re.M)
    builder = re.search(r"rust:(\d+)\.(\d+)-", DOCKERFILE)
    assert tuple(map(int, builder.groups())) >= tuple(map(int, oldest.groups()))
    requirements = (ROOT / "packaging/requirements.txt").read_text()
    pins = re.findall(r"\b(?:ziglang|cargo-zigbuild)==[\d.]+", DOCKERFILE)
    assert len(pins) == 2
    for pinned in pins:
        assert re.search(rf"^{re.escape(pinned)} ", requirements, re.M), pinned
    (cargo,) = [a for i, a in instructions() if i == "RUN" and a.startswith("cargo-zigbuild")]
    for argument in ("--release", "--locked", "-p orderup", "--target x86_64-unknown-linux-gnu.2.28"):
        assert argument in cargo


def test_every_function_and_the_handler_are_in_the_image(functions, host):
    copied = dict(argument.rsplit(None, 1) for argument in final("COPY"))
    folders = {source for source, target in copied.items() if target == f"./{source}/"}
    assert folders == set(functions)
    assert copied["--chmod=0644 host.json"] == "./"
    executable = host["customHandler"]["description"]["defaultExecutablePath"]
    (binary,) = [source for source in copied if source.startswith("--from=build")]
    assert "--chmod=0755" in binary and binary.endswith(f"/release/{executable}")
    # Vendors are the installation's, and the samples' secrets are known to everybody.
    assert "vendors.json" not in "".join(copied)


def test_sigterm_reaches_the_host_and_nobody_is_root():
    (entrypoint,) = final("ENTRYPOINT")
    assert json.loads(entrypoint) == ["/azure-functions-host/Microsoft.Azure.WebJobs.Script.WebHost"]
    assert not final("CMD")
    assert final("USER") == ["10001:10001"]
    assert final("EXPOSE") == ["8080"]


def test_the_user_and_the_port_are_those_of_the_pods(deployments):
    for deployment in deployments.values():
        spec = deployment["spec"]["template"]["spec"]
        security = spec["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == final("USER")[0]
        (port,) = spec["containers"][0]["ports"]
        assert str(port["containerPort"]) == final("EXPOSE")[0]


def test_every_variable_is_read_by_somebody_and_the_port_is_the_one_that_is_exposed():
    (variables,) = final("ENV")
    variables = dict(v.split("=", 1) for v in variables.split())
    assert variables["FUNCTIONS_WORKER_RUNTIME"] == "custom"
    assert variables["ASPNETCORE_URLS"] == f"http://+:{final('EXPOSE')[0]}"
    assert variables["AzureWebJobsScriptRoot"] == final("WORKDIR")[0]
    assert variables["HOME"] == "/tmp"
    assert {name for name in variables if not is_read(name)} == set()


def test_the_context_has_what_is_copied_and_no_more(functions):
    assert IGNORED[1] == "*", "everything is left out but what is named"
    members = re.search(r"^members = \[(.*)\]", (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    workspace = {"Cargo.toml", "Cargo.lock", "src", "templates", *re.findall(r'"([^"]+)"', members)}
    assert context() == workspace | set(functions) | {"host.json"}
    for name in context():
        assert (ROOT / name).exists()
    assert not context() & {"local.settings.json", "vendors.json", "target", ".git", "deploy"}
    assert IGNORED[-1] == "**/target"


def test_the_package_leaves_out_what_is_only_deployed():
    """`func azure functionapp publish` sends what .funcignore allows."""
    lines = (ROOT / ".funcignore").read_text().splitlines()
    assert "/*" in lines
    assert not [line for line in lines if line.startswith("!") and "deploy" in line]
