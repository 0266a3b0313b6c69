"""deploy/: the image and the compose file, checked without a container engine."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rag_platform_tests.integration import deploy_files
from rag_platform_tests.integration.deploy_files import DEPLOY, ROOT

PLATFORM = ("migrate", "code-server", "webserver", "daemon", "query-api", "rag")
SETTINGS = set(re.findall(r"`(RAG_[A-Z0-9_]+)`", (ROOT / "docs" / "settings.md").read_text("utf-8")))
"""Another test compares that page with the code."""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What deploy/make-env.sh writes, from copies in a folder of our own."""
    folder = tmp_path_factory.mktemp("deploy")
    for name in ("make-env.sh", ".env.example"):
        (folder / name).write_bytes((DEPLOY / name).read_bytes())
    command = ["sh", str(folder / "make-env.sh")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    before = (folder / ".env").read_bytes()
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 1
    assert (folder / ".env").read_bytes() == before, "a second run must not change passwords"
    return deploy_files.env_file(folder / ".env")


@pytest.fixture(scope="module")
def composed(secrets: dict[str, str]) -> dict[str, Any]:
    return deploy_files.compose(secrets)


def test_compose_file_keeps_the_specification(composed: dict[str, Any]) -> None:
    """With the generated passwords filled in it is valid under the schema of the Compose Specification."""
    schema = json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(composed)] == []


def test_every_demanded_password_is_in_the_example_and_none_has_a_value(secrets: dict[str, str]) -> None:
    """Nothing has a default password: the example lists what is demanded, empty, and the script fills all of it."""
    example = deploy_files.env_file(DEPLOY / ".env.example")
    assert set(example) == deploy_files.required_variables()
    assert set(example.values()) == {""}
    assert all(re.fullmatch(r"[0-9a-f]{64}", secrets[name]) for name in example)
    assert len(set(secrets.values())) == len(secrets)
    optional = set(re.findall(r"^#([A-Z_]+)=", (DEPLOY / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert deploy_files.variables() | {"METRICS_API_KEY"} == set(example) | optional


@pytest.mark.parametrize("name", sorted(deploy_files.required_variables()))
def test_without_a_password_nothing_starts(name: str, secrets: dict[str, str]) -> None:
    """Compose refuses a file in which one password is missing."""
    with pytest.raises(deploy_files.MissingVariable, match=name):
        deploy_files.compose({**secrets, name: ""})


def test_images_are_pinned(composed: dict[str, Any]) -> None:
    """Every image names an exact version, so that a restart does not upgrade."""
    for name, service in composed["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+\.\d+|\d+\.\d+-", tag), f"{name}: {service['image']}"
    bases = [i for i in deploy_files.dockerfile() if i.name == "ARG" and i.arguments.startswith("PYTHON_IMAGE=")]
    assert [re.search(r":\d+\.\d+\.\d+-slim", i.arguments) is not None for i in bases] == [True]


def test_ports_are_published_on_loopback(composed: dict[str, Any]) -> None:
    """By default nobody beyond this machine reaches anything, and stores are not published at all."""
    published = {n: s["ports"] for n, s in composed["services"].items() if "ports" in s}
    assert all(p.startswith("127.0.0.1:") for ports in published.values() for p in ports), published
    assert not {"postgres", "redis", "weaviate", "code-server"} & set(published)


def test_every_mounted_file_exists(composed: dict[str, Any]) -> None:
    """A missing source of a mount would become an empty folder."""
    for name, service in composed["services"].items():
        for mount in service.get("volumes", ()):
            source = mount.split(":", 1)[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in composed["volumes"], f"{name}: {source}"


def test_services_wait_for_what_is_healthy(composed: dict[str, Any]) -> None:
    """Every long-running service has a health check, a restart policy, a memory limit and rotated logs, and waits
    only for services that have what it waits for."""
    services = composed["services"]
    for name, service in services.items():
        assert service["logging"]["options"]["max-size"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        for other, how in service.get("depends_on", {}).items():
            assert (how["condition"] == "service_healthy" and "healthcheck" in services[other]) or (
                how["condition"] == "service_completed_successfully" and services[other]["restart"] == "no"
            ), f"{name} → {other}"
        if service["restart"] != "no":
            assert "healthcheck" in service, name
            assert service["deploy"]["resources"]["limits"]["memory"], name


def test_platform_containers_can_write_only_where_they_must(composed: dict[str, Any]) -> None:
    """Platform containers have a read-only file system, no capability, and one volume besides configuration."""
    for name in PLATFORM:
        service = composed["services"][name]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        writable = [v for v in service["volumes"] if not v.endswith(":ro")]
        assert writable == ["platform:/var/lib/rag"], name


def _files() -> Iterator[Path]:
    return (
        p for p in DEPLOY.rglob("*") if p.is_file() and p.name != ".gitkeep" and p.name not in (".env", "platform.env")
    )


@pytest.mark.parametrize("path", [*_files()], ids=lambda p: p.relative_to(DEPLOY).as_posix())
def test_no_unknown_setting(path: Path) -> None:
    """Every RAG_ variable in deploy/ is a setting of the platform."""
    unknown = set(re.findall(r"\bRAG_[A-Z0-9_]*[A-Z0-9]\b", path.read_text("utf-8"))) - SETTINGS
    assert unknown == set()


def test_commands_exist_with_their_options(composed: dict[str, Any]) -> None:
    """What compose starts is understood by the command lines of Dagster and of `rag`."""
    for name in PLATFORM:
        program, *arguments = composed["services"][name]["command"]
        if name == "rag":
            program, arguments = "rag", ["status"]
        # Where the container has its mount, here is the file itself.
        _parse(program, [a.replace("/etc/rag/", f"{DEPLOY}/") for a in arguments])
    default = next(i for i in deploy_files.dockerfile() if i.name == "CMD" and i.stage == "runtime")
    _parse(default.words[0], default.words[1:])


def _parse(program: str, arguments: list[str]) -> None:
    """Parse without running; a usage error is raised."""
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import create_dagster_webserver_cli
    from typer.main import get_command

    from rag_platform.cli import app

    command: Any = {
        "dagster": create_dagster_cli,
        "dagster-daemon": create_dagster_daemon_cli,
        "dagster-webserver": create_dagster_webserver_cli,
        "rag": lambda: get_command(app),
    }[program]()
    while hasattr(command, "get_command"):  # no group has options of its own here
        command = command.get_command(None, arguments.pop(0))
    command.make_context(program, arguments)


def test_prometheus_scrapes_services_that_exist(composed: dict[str, Any]) -> None:
    """Each target is a service of compose.yaml, and the key comes from a secret that it mounts."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    targets = [t for job in config["scrape_configs"] for s in job["static_configs"] for t in s["targets"]]
    assert {t.split(":")[0] for t in targets} - {"localhost"} <= set(composed["services"])
    key = config["scrape_configs"][0]["authorization"]["credentials_file"]
    assert Path(key).name in composed["services"]["prometheus"]["secrets"]
    weaviate = composed["services"]["weaviate"]["environment"]
    assert f"weaviate:{weaviate['PROMETHEUS_MONITORING_PORT']}" in targets


def test_grafana_finds_its_data_source_and_dashboards(composed: dict[str, Any]) -> None:
    """Provisioning names the Prometheus of compose.yaml and a folder that is mounted."""
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    folder = yaml.safe_load((provisioning / "dashboards" / "files.yaml").read_text("utf-8"))["providers"][0]
    mounts = [m.split(":")[1] for m in composed["services"]["grafana"]["volumes"]]
    assert folder["options"]["path"] in mounts


def test_image_runs_without_root_and_without_a_shell_in_between() -> None:
    """The runtime stage ends as another user than root, starts in exec form under tini, and has a health check."""
    runtime = [i for i in deploy_files.dockerfile() if i.stage == "runtime"]
    users = [i.arguments for i in runtime if i.name == "USER"]
    assert users and int(users[-1].split(":")[0]) >= 10000
    after = runtime[[i.name for i in runtime].index("USER") :]
    assert {i.name for i in after}.isdisjoint({"RUN", "COPY", "ADD"})
    entry = next(i for i in runtime if i.name == "ENTRYPOINT")
    assert entry.exec_form and entry.words[0].endswith("tini")
    assert next(i for i in runtime if i.name == "CMD").exec_form
    assert any(i.name == "HEALTHCHECK" for i in runtime)
    named = " ".join(i.arguments for i in runtime if i.name in ("ARG", "ENV"))
    assert not re.search(r"SECRET|PASSWORD|API_KEY|TOKEN", named)


def test_build_context_holds_what_the_image_copies_and_no_more() -> None:
    """.dockerignore is a list of what may enter; everything that COPY names is on it."""
    lines = [x for x in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if x and not x.startswith("#")]
    assert lines[0] == "*"
    allowed = {x[1:] for x in lines if x.startswith("!")}
    copied: set[str] = set()
    for instruction in deploy_files.dockerfile():
        if instruction.name == "COPY" and "--from=" not in instruction.arguments:
            copied.update(instruction.words[:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_image_installs_the_extras_that_its_roles_need() -> None:
    """PostgreSQL for ledger and Dagster, Kubernetes for the run launcher; both are extras of this project."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    wanted = set(re.findall(r"--extra (\w+)", text))
    assert {"postgres", "k8s"} <= wanted <= set(extras)
