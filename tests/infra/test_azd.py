"""azd's files and the workflow name what there is."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from bicep_deployment import deploy
from bicep_syntax import BicepError, parse
from project import INFRA, MAIN, REQUIRED, ROOT, deployment

PARAMETERS = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
WORKFLOW = (ROOT / ".github" / "workflows" / "deploy.yml").read_text()


def variables() -> dict[str, str]:
    """The environment variable of each parameter."""
    return {name: re.fullmatch(r"\$\{([A-Z_]+)\}", value["value"]).group(1) for name, value in PARAMETERS.items()}


def test_the_parameters_file_names_the_parameters_of_the_template():
    assert list(PARAMETERS) == [s.name for s in parse(MAIN) if s.kind == "param"]


def test_a_variable_is_named_as_its_parameter():
    names = variables()
    assert len(set(names.values())) == len(names)
    azd = {"environmentName", "location", "principalId", "principalType"}
    for parameter in names.keys() - azd:
        words = re.sub(r"([a-z])([A-Z])", r"\1_\2", parameter).upper()
        assert names[parameter] == words, parameter


def test_every_variable_is_documented():
    text = (ROOT / "docs" / "AZURE.md").read_text()
    azd = {"AZURE_ENV_NAME", "AZURE_LOCATION", "AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE"}
    assert [v for v in variables().values() if v not in azd and f"`{v}`" not in text] == []


def test_only_azd_must_say_something():
    required = {s.name for s in parse(MAIN) if s.kind == "param" and s.value is None}
    assert required == REQUIRED.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hostingPlan": "Premium"},
        {"maximumInstanceCount": 39},
        {"instanceMemoryMB": 1024},
        {"till": "stripe"},
        {"environmentName": ""},
        {"targetBasedScaling": "false"},
    ],
    ids=str,
)
def test_what_a_parameter_may_not_be_is_refused(wrong):
    with pytest.raises(BicepError, match=next(iter(wrong))):
        deploy(MAIN, REQUIRED | wrong)


def another(parameter) -> object:
    """A value that the parameter may have, and does not have by default."""
    default = parameter.value[1]
    if "allowed" in parameter.decorators:
        return next(value for _, value in parameter.decorators["allowed"][0][1] if value != default)
    return {bool: lambda: not default, int: lambda: default + 1, str: lambda: "something-else"}[type(default)]()


@pytest.mark.parametrize("parameter", [s for s in parse(MAIN) if s.kind == "param" and s.value], ids=lambda p: p.name)
def test_every_parameter_makes_a_difference(parameter):
    # What some depend on: a deployer there is, and Communication Services that are not made here.
    given = {"principalId": "deployer"} if parameter.name == "principalType" else {}
    given |= {"createEmailService": False} if parameter.name == "acsEndpoint" else {}
    usual, other = (deploy(MAIN, REQUIRED | given | more) for more in ({}, {parameter.name: another(parameter)}))
    assert usual != other


def hooks() -> dict:
    return yaml.safe_load((ROOT / "azure.yaml").read_text())["hooks"]


def test_azure_yaml():
    project = yaml.safe_load((ROOT / "azure.yaml").read_text())
    # As azd's schema has it: a name of small letters, and hooks named before or after a command, for either system.
    assert project.keys() == {"name", "metadata", "hooks"}
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", project["name"])
    for name, hook in hooks().items():
        assert re.fullmatch(r"(pre|post)(provision|deploy)", name)
        assert hook.keys() == {"posix", "windows"}
        for system, shell in (("posix", "sh"), ("windows", "pwsh")):
            assert hook[system].keys() == {"shell", "run"}
            assert hook[system]["shell"] == shell
        script = ROOT / hook["posix"]["run"]
        assert script.is_file() and script.stat().st_mode & 0o111, script
        assert script.name == f"{name}.sh"
        assert "exit 1" in hook["windows"]["run"] and (ROOT / "docs" / "AZURE.md").is_file()


def test_hooks_use_what_azd_knows_and_the_template_says():
    known = {o.name for o in parse(MAIN) if o.kind == "output"} | {"AZURE_SUBSCRIPTION_ID", "ORDERUP_PACKAGE"}
    for hook in hooks().values():
        text = (ROOT / hook["posix"]["run"]).read_text()
        used = set(re.findall(r"\$\{?((?:AZURE|ORDERUP)_[A-Z_]+)", text))
        assert used, hook
        assert used <= known, used - known


def test_the_package_is_made_as_anybody_makes_it():
    (recipe,) = re.findall(r"just ([\w-]+)$", (INFRA / "hooks" / "predeploy.sh").read_text(), re.M)
    justfile = (ROOT / "justfile").read_text()
    assert re.search(rf"^{recipe}\b.*:", justfile, re.M)
    assert "dist/orderup.zip" in justfile
    assert (ROOT / "packaging" / "zig").is_file()


def test_the_workflow_has_no_key_and_few_rights():
    workflow = yaml.safe_load(WORKFLOW)
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {}
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    assert job["environment"] == "${{ inputs.environment }}"
    # `on` is a boolean to YAML 1.1.
    assert workflow[True].keys() == {"workflow_dispatch"}
    for step in job["steps"]:
        assert "uses" not in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step
        # What a person has typed into GitHub must not become part of a script.
        assert "${{" not in step.get("run", ""), step
    assert "AZURE_CREDENTIALS" not in WORKFLOW
    assert any("--federated-credential-provider github" in step.get("run", "") for step in job["steps"])


def provision_step() -> dict:
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    (step,) = [step for step in job["steps"] if "azd provision" in step.get("run", "")]
    return step


def azd_sees(folder, github: dict) -> dict[str, str]:
    """What azd would be started with, where GitHub has these variables and secrets and no others. All it has not are empty."""
    azd = folder / "azd"
    azd.write_text(f"#!{sys.executable}\nimport json, os, sys\njson.dump([sys.argv[1:], dict(os.environ)], sys.stdout)\n")
    azd.chmod(0o755)
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    step = provision_step()
    expression = re.compile(r"\$\{\{ (?:vars|secrets)\.(\w+) }}")
    given = {n: expression.sub(lambda m: github.get(m[1], ""), str(v)) for n, v in (job["env"] | step["env"]).items()}
    assert not any("${{" in value for value in given.values())
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"} | given
    # As a runner does where a step names no shell.
    done = subprocess.run(["bash", "-e", "-c", step["run"]], env=environment, capture_output=True, text=True, timeout=60, check=True)
    arguments, environment = json.loads(done.stdout)
    assert arguments == ["provision", "--no-prompt"]
    return environment


def provisioned(environment: dict[str, str]):
    """What azd would deploy: a variable that is set is the value of its parameter, and be it empty."""
    types = {s.name: s.type for s in parse(MAIN) if s.kind == "param"}
    read = {"string": str, "int": int, "bool": {"true": True, "false": False}.__getitem__}
    given = {parameter: read[types[parameter]](environment[v]) for parameter, v in variables().items() if v in environment}
    return deploy(MAIN, given)


GITHUB = {"AZURE_ENV_NAME": "prod", "AZURE_LOCATION": "westeurope", "AZURE_CLIENT_ID": "1", "AZURE_TENANT_ID": "2"}


def test_the_workflow_without_optional_variables_deploys_the_defaults(tmp_path):
    environment = azd_sees(tmp_path, GITHUB)
    assert environment["AZURE_ENV_NAME"] == "prod" and "HOSTING_PLAN" not in environment
    assert provisioned(environment) == deploy(MAIN, REQUIRED | {"principalType": "ServicePrincipal"})


def test_the_workflow_deploys_what_its_variables_and_secrets_say(tmp_path):
    more = {"HOSTING_PLAN": "Consumption", "ALERT_ATTEMPTS": "9", "TARGET_BASED_SCALING": "false", "TILL_TOKEN": "a b\n$c"}
    parameters = {"hostingPlan": "Consumption", "alertAttempts": 9, "targetBasedScaling": False, "tillToken": "a b\n$c"}
    assert provisioned(azd_sees(tmp_path, GITHUB | more)) == deploy(MAIN, REQUIRED | {"principalType": "ServicePrincipal"} | parameters)


def test_what_azd_keeps_on_disk_is_not_committed():
    assert "/.azure/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_workflow_passes_every_parameter_on():
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    given = job["env"] | provision_step()["env"]
    names = variables()
    secure = {names[s.name] for s in parse(MAIN) if "secure" in s.decorators}
    # azd finds out by itself who deploys.
    for variable in set(names.values()) - {"AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE"}:
        assert given[variable] == f"${{{{ {'secrets' if variable in secure else 'vars'}.{variable} }}}}"
    assert given["AZURE_PRINCIPAL_TYPE"] == "ServicePrincipal"


def test_the_first_order_is_that_of_the_readme():
    bodies = [re.search(r"-d '(\{\s*\"customer\".*?\})'", (ROOT / f).read_text(), re.S).group(1) for f in ("README.md", "docs/AZURE.md")]
    first, second = map(json.loads, bodies)
    assert first == second


def test_the_outputs_are_those_of_the_documentation_and_the_hooks():
    outputs = deployment("with everything").outputs
    assert all(isinstance(value, str) and value for value in outputs.values())
    text = (ROOT / "docs" / "AZURE.md").read_text()
    for name in re.findall(r"get-value (\w+)", text):
        assert name in outputs, name
