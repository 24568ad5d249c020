"""The cluster scripts against stand-ins for the cluster's commands: what is run, and what each exit code leads to."""

import os
import subprocess

import pytest
import yaml


@pytest.fixture
def cluster(tmp_path, repository):
    """Run a script with fake commands in front of PATH; returns (process, lines that the fakes wrote)."""
    (tmp_path / "bin").mkdir()
    record = tmp_path / "record"

    def run(script, *arguments, commands, **environment):
        for name, body in commands.items():
            path = tmp_path / "bin" / name
            path.write_text(f'#!/bin/bash\necho {name} "$@" >>{record}\n{body}\n')
            path.chmod(0o755)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        command = ["bash", repository / "launch" / script, *arguments]
        environment = {**os.environ, "PATH": path, **environment}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done, record.read_text().splitlines()

    return run


def slurm(cluster, repository, code):
    return cluster(
        "slurm.sbatch",
        *("--config", "configs/quickstart.py", "--workdir", "a b"),
        commands={"srun": f"exit {code}", "scontrol": ""},
        SLURM_SUBMIT_DIR=str(repository),
        SLURM_JOB_ID="17",
    )


def test_slurm_starts_the_launch_line(cluster, repository):
    done, lines = slurm(cluster, repository, 0)
    assert done.returncode == 0
    assert len(lines) == 1
    assert lines[0].endswith("launch/run.py --config configs/quickstart.py --workdir a b")


def test_slurm_queues_again_on_75(cluster, repository):
    done, lines = slurm(cluster, repository, 75)
    assert lines[1:] == ["scontrol requeue 17"]
    assert done.returncode == 75


@pytest.mark.parametrize("code", [1, 2, 69, 137])
def test_slurm_does_not_queue_again_on_a_failure(cluster, repository, code):
    done, lines = slurm(cluster, repository, code)
    assert len(lines) == 1
    assert done.returncode == code


def tpu(cluster, tmp_path, endings, looks=()):
    """Run tpu_vm.sh against hosts that end, call by call, as the lists of codes in `endings` say, and a TPU that is in
    the states of `looks` and ready from then on; a look that is no state is an error of gcloud's. Returns (process,
    "start" or "look" in the order in which they came, the first start).
    """
    for kind, calls in (
        ("start", ["".join(f"jaxbio exited with {code}\n" for code in codes) for codes in endings]),
        ("look", looks),
    ):
        for number, said in enumerate(calls):
            (tmp_path / f"{kind}{number}").write_text(said)
    body = f"""
case "$*" in *describe*) kind=look ;; *) kind=start ;; esac
call=$(cat {tmp_path}/$kind.calls 2>/dev/null || echo 0); echo $((call + 1)) >{tmp_path}/$kind.calls
if [ $kind = start ]; then cat {tmp_path}/start$call 2>/dev/null || exit 255; exit; fi
said=$(cat {tmp_path}/look$call 2>/dev/null || echo READY)
case "$said" in *' '*) echo "ERROR: $said" >&2; exit 1 ;; *) echo "$said" ;; esac"""
    done, lines = cluster(
        "tpu_vm.sh", "--workdir", "a b", commands={"gcloud": body}, TPU="pod", ZONE="europe-west4-b", WAIT_S="0"
    )
    starts = [line for line in lines if "describe" not in line]
    return done, ["look" if "describe" in line else "start" for line in lines], starts[0] if starts else None


def test_tpu_starts_the_launch_line_on_every_host(cluster, tmp_path):
    done, calls, start = tpu(cluster, tmp_path, [[0, 0]])
    assert done.returncode == 0
    assert calls == ["look", "start"]
    assert "--worker=all" in start
    assert r"launch/run.py --workdir a\ b; echo jaxbio exited with $?" in start


@pytest.mark.parametrize(
    "first", [[75, 75], [0, 75], [], [69, 69]], ids=["preempted", "one_of_two", "all_lost", "one_lost"]
)
def test_tpu_starts_again_when_preempted_or_lost(cluster, tmp_path, first):
    done, calls, _ = tpu(cluster, tmp_path, [first, [0, 0]])
    assert done.returncode == 0
    assert calls == ["look", "start", "look", "start"]


@pytest.mark.parametrize("codes", [[2, 2], [75, 1], [1, 75], [0, 1]])
def test_tpu_ends_on_a_failure(cluster, tmp_path, codes):
    done, calls, _ = tpu(cluster, tmp_path, [codes])
    assert done.returncode in (1, 2)
    assert calls == ["look", "start"]


@pytest.mark.parametrize("codes", [[69, 137], [137, 69]])
def test_tpu_ends_when_the_host_that_was_gone_says_how_it_ended(cluster, tmp_path, codes):
    done, calls, _ = tpu(cluster, tmp_path, [codes])
    assert done.returncode == 137
    assert calls == ["look", "start"]


@pytest.mark.parametrize("look", ["NOT_FOUND: no such node", "no such zone", "PREEMPTED"])
def test_tpu_that_is_not_there_to_begin_with_ends_with_2(cluster, tmp_path, look):
    done, calls, _ = tpu(cluster, tmp_path, [[0]], [look])
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert look.partition(":")[0] in done.stderr
    assert calls == ["look"]


@pytest.mark.parametrize("look", ["NOT_FOUND: deleted", "PREEMPTED", "TERMINATED", "STOPPED", "DELETING"])
def test_tpu_that_will_not_come_back_ends_with_the_code_of_the_run_and_its_state(cluster, tmp_path, look):
    done, calls, _ = tpu(cluster, tmp_path, [[75, 75]], ["READY", "REPAIRING", look])
    assert done.returncode == 75
    assert f"error: pod in europe-west4-b is {look.partition(':')[0]} and" in done.stderr
    assert calls == ["look", "start", "look", "look"]


def test_tpu_is_waited_for_while_it_is_made_and_while_looks_fail_now_and_then(cluster, tmp_path):
    looks = ["CREATING", "READY", *["try again later"] * 4, "RESTARTING", *["try again later"] * 4]
    done, calls, _ = tpu(cluster, tmp_path, [[69, 69], [0, 0]], looks)
    assert done.returncode == 0
    assert calls == ["look", "look", "start", *["look"] * 10, "start"]


def test_tpu_ends_when_looks_fail_five_times_in_a_row(cluster, tmp_path):
    done, calls, _ = tpu(cluster, tmp_path, [[75, 75]], ["READY", *["not allowed"] * 9])
    assert done.returncode == 75
    assert "5 times in a row): ERROR: not allowed" in done.stderr
    assert calls == ["look", "start", *["look"] * 5]


@pytest.mark.parametrize(("codes", "ends_with"), [([], 255), ([69, 69], 69)], ids=["all_lost", "one_never_reached"])
def test_tpu_ends_when_five_starts_in_a_row_are_lost_at_once(cluster, tmp_path, codes, ends_with):
    done, calls, _ = tpu(cluster, tmp_path, [[75, 75], *[codes] * 9])
    assert done.returncode == ends_with
    assert "5 starts in a row" in done.stderr
    assert calls == ["look", "start"] * 6


def test_tpu_wants_a_name(cluster, tmp_path, repository):
    done = subprocess.run(
        ["bash", repository / "launch" / "tpu_vm.sh"], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode != 0
    assert "name the TPU" in done.stderr


def test_the_jobset_starts_the_same_line_and_tells_75_from_failure(repository):
    job = jobset(repository)["replicatedJobs"][0]["template"]["spec"]
    (train,) = job["template"]["spec"]["containers"]
    (command,) = train["args"]
    assert command.startswith("exec python launch/run.py ")
    assert job["parallelism"] == job["completions"] == int(command.partition("--processes ")[2].split()[0])


@pytest.mark.parametrize(
    ("ending", "leads_to"),
    [(75, "the pod anew"), ("DisruptionTarget", "the pod anew"), (2, "the end")]
    + [(code, "all hosts anew, counted") for code in (1, 69, 137)],
)
def test_what_the_jobset_does_when_a_pod_ends(repository, ending, leads_to):
    """As Kubernetes reads it: the first rule that matches decides; without one, a backoff limit of 0 fails the job."""
    spec = jobset(repository)
    job = spec["replicatedJobs"][0]["template"]["spec"]
    action = next((rule["action"] for rule in job["podFailurePolicy"]["rules"] if matches(rule, ending)), "Count")
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert spec["failurePolicy"]["maxRestarts"] > 0
    assert leads_to == {"Ignore": "the pod anew", "FailJob": "the end", "Count": "all hosts anew, counted"}[action]


def jobset(repository):
    return yaml.safe_load((repository / "launch" / "gke_jobset.yaml").read_text())["spec"]


def matches(rule, ending):
    """Whether a rule of a podFailurePolicy is for a pod that ended with this exit code or condition."""
    if "onExitCodes" in rule:
        codes = rule["onExitCodes"]
        assert (codes["containerName"], codes["operator"]) == ("train", "In")
        return ending in codes["values"]
    return ending in [condition["type"] for condition in rule["onPodConditions"]]
