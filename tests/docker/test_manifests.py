"""compose.yaml, the Slurm script and the Kubernetes manifests: valid by their schemas, and true to what they start."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docker.dockerfile import read_stages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml = pytest.importorskip("yaml", reason="the deploy extra brings it")

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
TRAIN_JOB = DOCKER / "k8s" / "trainjob.yaml"
JOB = DOCKER / "k8s" / "job.yaml"
SBATCH = DOCKER / "slurm" / "train.sbatch"


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


@pytest.fixture(scope="module")
def train() -> ModuleType:
    pytest.importorskip("torch", reason="the test extra brings it")
    spec = importlib.util.spec_from_file_location("train", DOCKER / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sbatch_words() -> list[str]:
    text = re.sub(r"\\\n", " ", SBATCH.read_text())
    (line,) = (line for line in text.splitlines() if line.startswith("srun "))
    return shlex.split(line.removesuffix(" &"))


def job_container() -> dict[str, Any]:
    job = next(doc for doc in yaml.safe_load_all(JOB.read_text()) if doc["kind"] == "Job")
    container: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize("who", ["compose", "trainjob", "job", "slurm"])
def test_the_arguments_are_those_of_the_training_job(who: str, train: ModuleType) -> None:
    words = {
        "compose": lambda: services()["train"]["command"],
        "trainjob": lambda: yaml.safe_load(TRAIN_JOB.read_text())["spec"]["trainer"]["args"],
        "job": lambda: job_container()["args"],
        "slurm": lambda: [word for word in sbatch_words() if word != "$@"],
    }[who]()
    options = train.parse_arguments(words[words.index("docker/train.py") + 1 :])
    assert options.data == Path("/data")
    assert options.checkpoint == Path("/out/checkpoint.pt")


def test_restarts_get_the_environment_that_they_need(train: ModuleType) -> None:
    """Those who ask torchrun for restarts, and the image that all of them start."""
    variable = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
    assert any(word.startswith("--max-restarts") for word in job_container()["args"])
    assert {"name": variable, "value": "1"} in job_container()["env"]
    assert "--max-restarts=3" in sbatch_words()
    script = SBATCH.read_text()
    assert script.index(f"export {variable}=1\n") < script.index("\nsrun ")
    assert f"ENV {variable}=1\n" in (DOCKER / "Dockerfile").read_text()
    restarts = {"TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert variable in train.restart_problem(restarts)
    assert train.restart_problem(restarts | {"TORCHELASTIC_USE_AGENT_STORE": "False"}) is None
    assert train.restart_problem(restarts | {"TORCHELASTIC_MAX_RESTARTS": "0"}) is None
    assert train.restart_problem({}) is None


def test_compose_services_build_targets_that_exist() -> None:
    assert set(services()) == {"demo", "test", "train"}
    stages = read_stages(DOCKER / "Dockerfile")
    for name, service in services().items():
        assert service["build"]["target"] in stages, name
        assert service["image"] == f"gpuseq:{service['build']['target']}"
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_compose_config() -> None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            break
    else:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    done = subprocess.run(
        [*command, "-f", str(COMPOSE), "config"], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {"demo", "test", "train"}


@pytest.mark.parametrize("number", [0, 1])
def test_the_job_is_valid_kubernetes(number: int) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="the deploy extra brings it")
    documents = list(yaml.safe_load_all(JOB.read_text()))
    assert [document["kind"] for document in documents] == ["Service", "Job"]
    kubernetes_validate.validate(documents[number], "1.31", strict=True)
    documents[number]["spec"]["completionz"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="completionz"):
        kubernetes_validate.validate(documents[number], "1.31", strict=True)


def test_the_jobs_pods_find_each_other() -> None:
    service, job = yaml.safe_load_all(JOB.read_text())
    name, nodes = job["metadata"]["name"], job["spec"]["completions"]
    arguments = dict(word.removeprefix("--").split("=") for word in job_container()["args"] if "=" in word)
    assert arguments["rdzv-endpoint"].startswith(f"{name}-0.{service['metadata']['name']}:")
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert int(arguments["nnodes"]) == nodes == job["spec"]["parallelism"]
    assert int(arguments["nproc-per-node"]) == int(job_container()["resources"]["limits"]["nvidia.com/gpu"])


def test_the_trainjob_is_valid_for_kubeflow_trainer() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="the deploy extra brings it")
    document = yaml.safe_load(TRAIN_JOB.read_text())
    # The model drops what it does not know, so what comes back shows every misspelt field.
    known = json.loads(models.TrainerV1alpha1TrainJob.from_dict(document).to_json())
    assert known == document
    document["spec"]["trainer"]["numNodez"] = 2
    assert json.loads(models.TrainerV1alpha1TrainJob.from_dict(document).to_json()) != document


def test_the_slurm_script_is_a_shell_script() -> None:
    assert subprocess.run(["bash", "-n", str(SBATCH)], capture_output=True, check=False).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(SBATCH)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_slurm_script_starts_one_launcher_per_node(tmp_path: Path) -> None:
    """Run it with a stand-in for Slurm and look at what reaches srun."""
    for name, text in (("scontrol", 'echo "node7\nnode8"'), ("srun", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "OUT": str(tmp_path / "out"),
    }
    done = subprocess.run(
        ["bash", str(SBATCH), "--epochs", "3"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words.index("torchrun") < words.index("docker/train.py")
    assert "--nnodes=2" in words
    assert "--nproc-per-node=8" in words
    assert any(re.fullmatch(r"--rdzv-endpoint=node7:\d{5}", word) for word in words)
    assert words[-2:] == ["--epochs", "3"]
    assert (tmp_path / "out").is_dir()


def pods() -> dict[str, dict[str, Any]]:
    """Return the pods of the two manifests, and how the containers in each are found."""
    (job,) = (document for document in yaml.safe_load_all(JOB.read_text()) if document["kind"] == "Job")
    (patch,) = yaml.safe_load(TRAIN_JOB.read_text())["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return {"job": job["spec"]["template"]["spec"], "trainjob": replicated["template"]["spec"]["template"]["spec"]}


@pytest.mark.parametrize("name", ["job", "trainjob"])
def test_the_pods_keep_to_the_restricted_profile(name: str) -> None:
    """What Pod Security's "restricted" demands: https://kubernetes.io/docs/concepts/security/pod-security-standards."""
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert {next(key for key in volume if key != "name") for volume in pod["volumes"]} <= {
        "persistentVolumeClaim",
        "emptyDir",
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_compose_takes_no_rights_and_only_the_training_takes_gpus() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert ("deploy" in service) == (name == "train")


def test_the_slurm_script_asks_for_another_turn_before_its_time_is_over(tmp_path: Path) -> None:
    """Slurm's USR1 to the script: requeued, and the step is waited for. TERM is handed on to it."""
    seen = tmp_path / "seen"
    srun = 'trap \'echo TERM >> "$SEEN"; exit 5\' TERM\necho started >> "$SEEN"\nwhile :; do sleep 0.05; done'
    scontrol = 'case $1 in show) echo node7;; requeue) echo "requeue $2" >> "$SEEN";; esac'
    for name, text in (("scontrol", scontrol), ("srun", srun)):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "8",
        "OUT": str(tmp_path / "out"),
        "SEEN": str(seen),
    }
    with subprocess.Popen(["bash", str(SBATCH)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as script:
        for number, wanted in ((None, "started"), (signal.SIGUSR1, "requeue 1234567"), (signal.SIGTERM, "TERM")):
            if number is not None:
                script.send_signal(number)
            deadline = time.monotonic() + 240
            while not seen.exists() or seen.read_text().splitlines()[-1:] != [wanted]:
                assert time.monotonic() < deadline, wanted
                time.sleep(0.02)
    assert script.returncode == 5


@pytest.mark.parametrize("extra", ["test", "cuda13"])
def test_what_images_install_first_is_what_pyproject_says(extra: str) -> None:
    done = subprocess.run(
        [sys.executable, str(DOCKER / "requirements.py"), extra], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) < set(lines)
    assert {line for line in project["optional-dependencies"][extra] if "gpuseq[" not in line} < set(lines)
    assert not [line for line in lines if line.startswith("gpuseq")]


def test_dependencies_are_installed_before_the_sources_are_there() -> None:
    for name, stage in read_stages(DOCKER / "Dockerfile").items():
        if name == "base":
            continue
        sources = [argument.split()[-2] for kind, argument in stage.lines if kind == "COPY"]
        installs = [number for number, (kind, argument) in enumerate(stage.lines) if kind == "RUN" and "-r" in argument]
        whole = [n for n, (kind, argument) in enumerate(stage.lines) if kind == "COPY" and argument.split()[-2:] in
                 (["gpuseq", "gpuseq"], [".", "."])]  # fmt: skip
        assert sources, name
        assert installs[0] < whole[0], name
        assert all("--mount=type=cache" in argument for kind, argument in stage.lines if "pip install" in argument), (
            name
        )
