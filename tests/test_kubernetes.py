"""The manifests of docs/kubernetes fit the schemas of Kubernetes, and the programs that they start."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from telemetry.server import SHUTDOWN_S
from tests.parts import missing
from tests.processes import ROOT, UNSET

FOLDER = ROOT / "docs" / "kubernetes"
VALIDATE = ROOT / ".tools" / "bin" / "kubernetes-validate"
KUSTOMIZE = ROOT / ".tools" / "bin" / "kustomize"
# The first has what the manifests use; the last is the newest that the validator knows.
VERSIONS = ("1.32.0", "1.37.0")
WORKLOADS = ("Deployment", "StatefulSet")
Manifest = dict[str, Any]


def build(folder: Path) -> str:
    """The manifests of the folder, as kustomize puts them together."""
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    elif KUSTOMIZE.exists():
        command = [str(KUSTOMIZE), "build"]
    else:
        missing("kubectl", "install it, or kustomize as .ci/run does")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module", params=["base", "example"])
def text(request: pytest.FixtureRequest) -> str:
    return build(FOLDER / request.param)


@pytest.fixture
def manifests(text: str) -> list[Manifest]:
    return list(yaml.safe_load_all(text))


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        if manifest["kind"] in WORKLOADS:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
def test_they_fit_the_schemas(version: str, tmp_path: Path) -> None:
    """No field is unknown, missing or of another type, in an older and in the newest Kubernetes."""
    if not VALIDATE.exists():
        missing("the environment .tools", "make site")
    (tmp_path / "all.yaml").write_text(build(FOLDER / "example"))
    command = [str(VALIDATE), "--strict", "--quiet", "-k", version, str(tmp_path / "all.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_wrong_field_is_noticed(tmp_path: Path) -> None:
    """The check itself refuses a manifest that the server would ignore in part."""
    if not VALIDATE.exists():
        missing("the environment .tools", "make site")
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 1}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    command = [str(VALIDATE), "--strict", "--quiet", str(tmp_path / "wrong.yaml")]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode != 0


def test_a_pod_has_the_time_to_end(manifests: list[Manifest]) -> None:
    """It is killed only after it has waited for the load balancers and ended its turns."""
    for name, pod in pods(manifests):
        container = pod["containers"][0]
        if "preStop" in container.get("lifecycle", {}):
            waits = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
            assert pod["terminationGracePeriodSeconds"] >= waits + SHUTDOWN_S + 10, name
    assert {"api", "ui"} <= {name for name, pod in pods(manifests) if "lifecycle" in pod["containers"][0]}


def test_no_pod_may_more_than_it_needs(manifests: list[Manifest]) -> None:
    """None is root, gains privileges, writes to its image or reaches the cluster's API; each has a limit of memory."""
    for name, pod in pods(manifests):
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["automountServiceAccountToken"] is False, name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name


def test_the_variables_are_read(manifests: list[Manifest]) -> None:
    """Each variable of the service and the chat is one that they read; secrets come from the secret alone."""
    shared = [each for each in manifests if each["kind"] == "ConfigMap"]
    names = {name for each in shared for name in each["data"]}
    for name, pod in pods(manifests):
        for variable in pod["containers"][0].get("env", []):
            if re.search(r"SECRET|KEY|AUTHORIZATION|DATABASE_URL", variable["name"]):
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "agents", variable["name"]
            if not name.startswith("collector"):
                names.add(variable["name"])
    assert names - set(UNSET) == set()
    assert "Secret" not in {each["kind"] for each in manifests}


def test_probes_ask_what_is_there(manifests: list[Manifest], openapi_paths: set[str]) -> None:
    """Liveness does not depend on the database, readiness does, and both are routes of the service."""
    [api] = [pod for name, pod in pods(manifests) if name == "api"]
    container = api["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert {"/health", "/health/ready"} <= openapi_paths


def test_references_lead_to_something(manifests: list[Manifest]) -> None:
    """Services, budgets, autoscalers and policies select pods that exist; addresses name a service and its port."""
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in manifests if each["kind"] in WORKLOADS]
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    ports = {
        (e["metadata"]["name"], p["port"]) for e in manifests if e["kind"] == "Service" for p in e["spec"]["ports"]
    }
    for each in manifests:
        spec = each.get("spec", {})
        selectors = {
            "Service": lambda spec=spec: spec["selector"],
            "PodDisruptionBudget": lambda spec=spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec=spec: spec["podSelector"]["matchLabels"],
        }
        if selector := selectors.get(each["kind"]):
            assert any(selector().items() <= have.items() for have in labels), each["metadata"]["name"]
        if each["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
            assert 1 < spec["minReplicas"] < spec["maxReplicas"]
        if each["kind"] == "StatefulSet":
            assert ("Service", spec["serviceName"]) in names
    for _, pod in pods(manifests):
        for variable in pod["containers"][0].get("env", []):
            address = httpx.URL(variable.get("value", "")) if variable.get("value", "").startswith("http://") else None
            assert address is None or (address.host, address.port) in ports


def test_each_spool_has_a_volume_of_its_own(manifests: list[Manifest]) -> None:
    """A replica's spool outlives its pod, on a disk that no other replica mounts."""
    for each in manifests:
        if each["kind"] == "StatefulSet":
            [claim] = each["spec"]["volumeClaimTemplates"]
            assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
            assert each["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"
    spools = {
        name: variable["value"]
        for name, pod in pods(manifests)
        for variable in pod["containers"][0].get("env", [])
        if variable["name"] == "TELEMETRY_SPOOL_DIR"
    }
    assert spools == {"api": "/data/spool", "ui": "/data/spool"}


@pytest.fixture(scope="module")
def openapi_paths() -> set[str]:
    return set(yaml.safe_load((ROOT / "tests" / "app" / "openapi.json").read_text())["paths"])
