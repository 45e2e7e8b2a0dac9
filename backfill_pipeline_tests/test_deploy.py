"""`deploy/` stands: what it configures loads in Dagster, Kubernetes jobs render closed, and no secret is written down.

The Compose file and a run's Kubernetes job are held against the schemas that their makers publish. There is no cluster
and no Docker here: the Compose file and the image are read, not run.
"""

import re
import tomllib

import dagster as dg
import kubernetes_validate
import pytest
import sqlalchemy as sa
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient
from packaging.requirements import Requirement

from backfill_pipeline.control.host_check import HEALTH_PATH
from backfill_pipeline.orchestration.celery_launcher import WorkersRunLauncher
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.test_architecture import ROOT

DEPLOY = ROOT.parent / "deploy"
VALUES = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
KUBERNETES = "1.35"
NAMES = {field.alias for field in Settings.model_fields.values()}
ROLES = ("webserver", "daemon", "worker")
IMAGE_EXTRAS = ("postgres", "redis", "workers", "kubernetes")
PINS = (ROOT.parent / "constraints.txt").read_text(encoding="utf-8").split()


def snake(value):
    """The chart's words as Dagster's own."""
    if isinstance(value, dict):
        return {re.sub("[A-Z]", lambda c: f"_{c.group().lower()}", key): snake(one) for key, one in value.items()}
    return value


def test_the_instance_for_several_hosts_loads(tmp_path, monkeypatch):
    """It differs from the one at the top in its launcher, limits and retries alone; the broker is a variable."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("BACKFILL_BROKER", "redis://:hush@127.0.0.1:1/0")
    text = (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text(text, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, WorkersRunLauncher)
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert "hush" not in str(instance.get_ref()) + instance.info_str()
    top, ours = yaml.safe_load((ROOT.parent / "dagster.yaml").read_text(encoding="utf-8")), yaml.safe_load(text)
    assert {name for name in top | ours if top.get(name) != ours.get(name)} == {
        "run_launcher",
        "concurrency",
        "run_retries",
    }


def test_the_charts_instance_is_that_of_several_hosts(tmp_path, monkeypatch):
    """What the values say of monitoring, retries, limits and ticks is `deploy/dagster.yaml` again; Dagster takes it."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    config = VALUES["additionalInstanceConfig"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_max_retries == 3
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4
    ours = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    ours["run_monitoring"]["start_timeout_seconds"] = 300  # a pod may have to wait for a node
    assert config == {name: ours[name] for name in config}
    # The chart would write these a second time into the same file.
    daemon = VALUES["dagsterDaemon"]
    assert [daemon[name]["enabled"] for name in ("runCoordinator", "runMonitoring", "runRetries")] == [False] * 3
    assert daemon["sensors"] == {"useThreads": False}


def test_a_kubernetes_run_is_closed_and_knows_secrets_by_name():
    """The job as Dagster's launcher renders it: as Kubernetes' schema asks, not root, read-only, bounded, no secret."""
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    # Else the launcher lets the code server's limit of memory win over the run's own.
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": False}
    own = launcher["runK8sConfig"]
    context = K8sContainerContext(
        env_secrets=[one["name"] for one in launcher["envSecrets"]],
        volumes=launcher["volumes"],
        volume_mounts=[snake(one) for one in launcher["volumeMounts"]],
        resources=launcher["resources"],
        run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(
            {"container_config": own["containerConfig"], "pod_spec_config": own["podSpecConfig"]}
        ),
    )
    image = deployment["image"]
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            dagster_home=VALUES["global"]["dagsterHome"],
            instance_config_map="backfill-dagster-instance",
            postgres_password_secret=VALUES["global"]["postgresqlSecretName"],
            job_image=f"{image['repository']}:{image['tag']}",
        ),
        ["dagster", "api", "execute_run"],
        "run",
        context.run_k8s_config,
    )
    told = ApiClient().sanitize_for_serialization(job)
    kubernetes_validate.validate(told, KUBERNETES, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(told | {"spec": {**told["spec"], "templates": {}}}, KUBERNETES, strict=True)
    pod = told["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] == "1280Mi"
    assert container["envFrom"] == [{"secretRef": {"name": "backfill-settings"}}]
    said = {one["name"]: one.get("value") for one in container["env"]}
    assert said["BACKFILL_STORE"] == "s3://bucket/prefix"
    assert said["DAGSTER_PG_PASSWORD"] is None  # from the secret
    assert {one["name"] for one in pod["volumes"]} >= {"private", "tmp"}
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounted >= {"/opt/dagster/.dagster", "/tmp"}  # noqa: S108 - in the container


def test_every_pod_of_the_chart_is_closed():
    """Code server, daemon and webserver: our image, not root, read-only but for two folders, bounded, and probed."""
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    daemon, webserver = VALUES["dagsterDaemon"], VALUES["dagsterWebserver"]
    for one in (deployment, daemon, webserver):
        assert one["image"] == deployment["image"]
        assert one["podSecurityContext"]["runAsNonRoot"] is True
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["limits"]["memory"]
        assert {mount["mountPath"] for mount in one["volumeMounts"]} == {"/opt/dagster/.dagster", "/tmp"}  # noqa: S108
    assert daemon["livenessProbe"]["exec"]["command"] == ["dagster-daemon", "liveness-check"]
    port = webserver["service"]["port"]
    assert port > 1023  # a user other than root may not listen below
    assert {webserver[f"{name}Probe"]["httpGet"]["port"] for name in ("readiness", "liveness")} == {port}


def test_the_charts_storage_finds_its_driver():
    """The driver that the image holds is named: without a name SQLAlchemy takes one that is not there."""
    url = sa.make_url(f"{VALUES['postgresql']['postgresqlScheme']}://user@host/database")
    assert url.get_dialect().import_dbapi().__name__ == "psycopg2"


def test_the_compose_file_is_one():
    """By the schema that Compose publishes; a word too much is refused."""
    words = ["--builtin-schema", "vendor.compose-spec"]
    found = CliRunner().invoke(check_jsonschema, [*words, str(DEPLOY / "compose.yaml")])
    assert found.exit_code == 0, found.output
    wrong = CliRunner().invoke(check_jsonschema, [*words, str(DEPLOY / "helm-values.yaml")])
    assert wrong.exit_code == 1


@pytest.mark.parametrize("role", ROLES)
def test_every_container_of_ours_is_closed(role):
    """Not root, read-only but for its folder and /tmp, no capability, bounded memory, a health check of its own."""
    service = COMPOSE["services"][role]
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert (service["tmpfs"], service["volumes"]) == (["/tmp"], ["/opt/dagster/.dagster"])  # noqa: S108 - as above
    assert service["mem_limit"]
    assert "healthcheck" in service or role == "worker"  # the image's own


@pytest.mark.parametrize("server", ["postgres", "redis"])
def test_postgres_and_redis_are_closed_as_well(server):
    """Their own user, read-only but for their data and sockets, no capability, no new privilege, bounded memory."""
    service = COMPOSE["services"][server]
    assert service["read_only"] is True
    assert service["user"] == "999:999"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in service
    assert service["mem_limit"]
    assert service["volumes"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - in the container
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z]+:\d+\}", service["image"])  # a digest may be put in its place


def test_pods_are_reached_from_their_namespace_alone():
    """The policy is one by Kubernetes' schema, and closes every pod to other namespaces."""
    policy = yaml.safe_load((DEPLOY / "network-policy.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    assert policy["kind"] == "NetworkPolicy"
    assert policy["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}]}],
    }


def test_the_images_packages_are_those_of_the_constraints_each_with_its_hashes():
    """Names, versions, markers and hashes, and no host; all that the project and its extras name is among them."""
    text = (DEPLOY / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    blocks = [block.split() for block in re.split(r"\n(?! )", "\n".join(lines)) if block]
    pins = {Requirement(line).name.replace("_", "-").lower(): line for line in PINS}
    names = set()
    for block in blocks:
        head = " ".join(word for word in block if word != "\\" and not word.startswith("--hash="))
        found = Requirement(head)
        name = found.name.replace("_", "-").lower()
        names.add(name)
        assert found.url is None
        assert [word for word in block if re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word)], head
        pinned = Requirement(pins.get(name, f"{name}{found.specifier}"))
        assert found.specifier == pinned.specifier
        # Packages of other systems, and what builds ours, are not in the constraints of an installation.
        assert name in pins or found.marker or name == "setuptools"
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in IMAGE_EXTRAS for one in extras[extra])]
    asked = {Requirement(one).name.replace("_", "-").lower() for one in wanted} - {"backfill-pipeline"}
    assert asked <= names


def test_no_secret_is_written_down():
    """Variables that hold secrets are asked for by name; those that we set are settings that there are."""
    assert COMPOSE["x-backfill"]["build"]["args"] == {"BASE_IMAGE": "${BASE_IMAGE:-python:3.12-slim}"}
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            assert name in NAMES or name.startswith(("POSTGRES_", "REDIS_"))
            if any(word in name for word in ("KEY", "PASSWORD", "BROKER", "STORAGE", "LIMITER")):
                assert re.search(r"\$\{[A-Z_]+:\?", value)
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert {one["name"] for one in deployment["env"]} <= NAMES | {"HOME"}
    text = (DEPLOY / "helm-values.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)password: *[\"']?\w", text)


def test_every_webserver_of_ours_checks_host_and_origin():
    """The Compose file runs the checked one; in the image it has the name that Dagster's chart calls."""
    module = "backfill_pipeline.control.webserver"
    assert COMPOSE["services"]["webserver"]["command"][:3] == ["python", "-m", module]
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if "dagster-webserver" in line and line.startswith("RUN")]
    assert line.endswith(f'exec python -m {module} "$@"\\n\' > "$(command -v dagster-webserver)"')
    assert VALUES["dagsterWebserver"]["readinessProbe"]["httpGet"]["path"] == HEALTH_PATH


def test_the_image_is_closed():
    """It ends as another user than root, with a health check, and holds none of the clone's private files."""
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert [path for path in copied if not (ROOT.parent / path).exists()] == []
    kept = (ROOT.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[0] == "**"
    assert {line[1:] for line in kept if line.startswith("!")} == copied
