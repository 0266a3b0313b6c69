"""deploy/helm: what the chart renders, checked against the API's types and against Dagster's own run launcher."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_platform_tests.integration import helm
from rag_platform_tests.integration.deploy_files import DEPLOY, ROOT

pytest.importorskip("kubernetes", reason="the extra k8s is not installed")

from rag_platform_tests.integration import kubernetes_objects

EVERYTHING: dict[str, Any] = {
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "sources": [{"name": "contracts", "uri": "s3://acme-contracts", "acl": ["legal"]}],
    "serviceAccount": {"ingestion": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/rag"}}},
    "runs": {
        "nodeSelector": {"pool": "batch"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "priorityClassName": "low",
    },
    "webserver": {"readOnly": True, "ingress": {"enabled": True, "className": "nginx", "tlsSecretName": "tls"}},
    "query": {
        "ingress": {"enabled": True, "annotations": {"a": "b"}},
        "nodeSelector": {"pool": "web"},
        "otlpEndpoints": "http://phoenix:6006/v1/traces",
        "dagsterUrl": "https://dagster.example.com",
    },
    "networkPolicy": {
        "enabled": True,
        "queryFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
}
CASES = {
    "defaults": {},
    "everything": EVERYTHING,
    "little": {
        "query": {"autoscaling": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
        "serviceAccount": {"query": {"create": False, "name": "mine"}},
        "networkPolicy": {"enabled": True},
    },
    "lancedb": {"config": {"RAG_VECTOR_STORE": "lancedb", "RAG_INDEX_URL": "s3://acme-rag/index"}},
}

Render = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """The objects of a case, rendered once."""
    done: dict[str, list[dict[str, Any]]] = {}

    def render(case: str) -> list[dict[str, Any]]:
        if case not in done:
            done[case] = helm.render(tmp_path_factory.mktemp("values"), CASES[case])
        return done[case]

    return render


def test_helm_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    """`helm lint --strict` passes."""
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(helm.NEEDED))
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(helm.CHART), "--values", str(values))


@pytest.mark.parametrize("case", CASES)
def test_objects_are_what_kubernetes_knows(case: str, rendered: Render) -> None:
    """No object has an unknown field, a wrong type or lacks a required field; names are unique for each kind."""
    objects = rendered(case)
    assert [p for o in objects for p in kubernetes_objects.problems(o)] == []
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)


@pytest.mark.parametrize("case", CASES)
def test_references_lead_somewhere(case: str, rendered: Render) -> None:
    """Services, budgets, policies and the autoscaler select pods that exist; mounted maps and accounts are made."""
    objects = rendered(case)
    pods = {o["metadata"]["name"]: o["spec"]["template"] for o in objects if o["kind"] == "Deployment"}
    labels = [p["metadata"]["labels"] for p in pods.values()]
    made = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for o in objects:
        spec = o.get("spec", {})
        selector = {
            "Service": lambda s: s["selector"],
            "PodDisruptionBudget": lambda s: s["selector"]["matchLabels"],
            "NetworkPolicy": lambda s: s["podSelector"]["matchLabels"],
            "Deployment": lambda s: s["selector"]["matchLabels"],
        }.get(o["kind"])
        if selector:
            chosen = selector(spec)
            assert any(chosen.items() <= each.items() for each in labels), o["metadata"]["name"]
        if o["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in pods
        if o["kind"] == "Ingress":
            backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]
            assert ("Service", backend) in made
    for pod in pods.values():
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made
        account = pod["spec"]["serviceAccountName"]
        assert account == "mine" or ("ServiceAccount", account) in made
        ports = {p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", ())}
        for probe in _values(pod, "httpGet"):
            assert probe["port"] in ports


def test_pods_fit_the_restricted_standard(rendered: Render) -> None:
    """Pod Security Standard "restricted", and a read-only root file system, for every container of every pod."""
    for o in rendered("everything"):
        if o["kind"] == "Deployment":
            assert_restricted(o["spec"]["template"]["spec"])


def test_query_pods_may_do_nothing_in_the_cluster(rendered: Render) -> None:
    """The query API has no token; the role for runs is bound to the other account and names no secrets."""
    objects = rendered("defaults")
    query = next(o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-query"))
    assert query["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    binding = next(o for o in objects if o["kind"] == "RoleBinding")
    assert binding["subjects"][0]["name"] != query["spec"]["template"]["spec"]["serviceAccountName"]
    role = next(o for o in objects if o["kind"] == "Role")
    assert {r for rule in role["rules"] for r in rule["resources"]} == {
        "jobs", "jobs/status", "pods", "pods/log", "pods/status", "events",
    }  # fmt: skip


def test_a_stopping_query_pod_has_the_time_that_it_takes(rendered: Render) -> None:
    """Kubernetes waits longer than the delay before the port closes and the grace for open requests together."""
    query = next(
        o for o in rendered("defaults") if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-query")
    )
    pod = query["spec"]["template"]["spec"]
    env = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    needed = float(env["RAG_HTTP_SHUTDOWN_DELAY_S"]) + float(env["RAG_HTTP_SHUTDOWN_GRACE_S"])
    assert pod["terminationGracePeriodSeconds"] > needed
    assert pod["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert pod["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/health/live"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"existingSecret": ""}, "existingSecret"),
        ({"config": {"RAG_OBJECT_STORE_URL": "/var/lib/rag/objects"}}, "RAG_OBJECT_STORE_URL"),
        ({"config": {"RAG_OBJECT_STORE_URL": "file:/objects"}}, "RAG_OBJECT_STORE_URL"),
        ({"config": {"RAG_WEAVIATE_URL": ""}}, "RAG_WEAVIATE_URL"),
        ({"config": {"RAG_KEYWORD_REPLICA_URL": ""}}, "RAG_KEYWORD_REPLICA_URL"),
        ({"config": {"RAG_VECTOR_STORE": "lancedb"}}, "RAG_INDEX_URL"),
        ({"config": {"RAG_WEAVIATE_API_KEY": "secret"}}, "RAG_WEAVIATE_API_KEY"),
        ({"config": {"RAG_LEDGER_URL": "postgresql://rag:secret@host/rag"}}, "RAG_LEDGER_URL"),
        ({"config": {"RAG_CACHE": "in_process"}}, "RAG_CACHE"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"quary": {}}, "quary"),
        ({"query": {"autoscaling": {"maxReplica": 3}}}, "maxReplica"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Local paths, secrets in the ConfigMap, missing addresses and misspelt names fail at `helm template`."""
    with pytest.raises(helm.Refused, match=message):
        helm.render(tmp_path, values)


def test_every_setting_of_the_templates_exists() -> None:
    """Every RAG_ variable of the chart is a setting of the platform, and every value is used by a template."""
    known = set(re.findall(r"`(RAG_[A-Z0-9_]+)`", (ROOT / "docs" / "settings.md").read_text("utf-8")))
    templates = "\n".join(p.read_text("utf-8") for p in (helm.CHART / "templates").iterdir())
    assert set(re.findall(r"\bRAG_[A-Z0-9_]+", templates)) - known == set()
    values = yaml.safe_load((DEPLOY / "helm" / "rag-platform" / "values.yaml").read_text("utf-8"))
    assert [name for name in values if f".{name}" not in templates] == []


def assert_restricted(pod: dict[str, Any]) -> None:
    """Fail when a pod (in the API's own spelling) breaks the restricted standard."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] != 0
    assert context["seccompProfile"]["type"] == "RuntimeDefault"
    assert not pod.get("hostNetwork") and not pod.get("hostPID")
    assert all({"configMap", "emptyDir", "secret"} & set(v) for v in pod["volumes"])
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"]["drop"] == ["ALL"]
        assert own["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]


def _values(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == name:
                yield item
            yield from _values(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _values(item, name)
