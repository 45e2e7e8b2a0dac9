"""`deploy/` stands: what it configures loads in Dagster, Kubernetes jobs render closed, and no secret is written down.

There is no cluster and no Docker here: the Compose file and the image are read, not run.
"""

import re

import dagster as dg
import pytest
import yaml
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

from backfill_pipeline.orchestration.workers import WorkersRunLauncher
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.test_architecture import ROOT

DEPLOY = ROOT.parent / "deploy"
VALUES = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
NAMES = {field.alias for field in Settings.model_fields.values()}
ROLES = ("webserver", "daemon", "worker")


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


def test_the_charts_instance_loads(tmp_path, monkeypatch):
    """What the values say of monitoring, retries and limits is what Dagster takes."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    daemon = VALUES["dagsterDaemon"]
    config = {
        "run_monitoring": snake(daemon["runMonitoring"]),
        "run_retries": snake(daemon["runRetries"]),
        **VALUES["additionalInstanceConfig"],
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_max_retries == 3
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4


def test_a_kubernetes_run_is_closed_and_knows_secrets_by_name():
    """The job as Dagster's launcher renders it: not root, read-only, bounded, secrets from a reference."""
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    own = launcher["runK8sConfig"]
    context = K8sContainerContext(
        env_secrets=[one["name"] for one in deployment["envSecrets"]],
        volumes=deployment["volumes"],
        volume_mounts=[snake(one) for one in deployment["volumeMounts"]],
        resources=launcher["resources"],
        run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(
            {"container_config": own["containerConfig"], "pod_spec_config": own["podSpecConfig"]}
        ),
    )
    image = deployment["image"]
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            dagster_home="/opt/dagster/dagster_home", job_image=f"{image['repository']}:{image['tag']}"
        ),
        ["dagster", "api", "execute_run"],
        "run",
        context.run_k8s_config,
        env_vars=deployment["env"],
    )
    pod = ApiClient().sanitize_for_serialization(job)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] == "1280Mi"
    assert container["envFrom"] == [{"secretRef": {"name": "backfill-settings"}}]
    assert {one["name"] for one in pod["volumes"]} >= {"private", "tmp"}
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounted >= {"/opt/dagster/dagster_home/.dagster", "/tmp"}  # noqa: S108 - in the container


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


def test_no_secret_is_written_down():
    """Variables that hold secrets are asked for by name; those that we set are settings that there are."""
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            assert name in NAMES or name.startswith(("POSTGRES_", "REDIS_"))
            if any(word in name for word in ("KEY", "PASSWORD", "BROKER", "STORAGE", "LIMITER")):
                assert re.search(r"\$\{[A-Z_]+:\?", value)
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert {one["name"] for one in deployment["env"]} <= NAMES | {"HOME"}
    text = (DEPLOY / "helm-values.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)password: *[\"']?\w", text)


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
