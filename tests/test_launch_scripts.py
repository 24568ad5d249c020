"""The cluster scripts against stand-ins for the cluster's commands: what is run, and what each exit code leads to."""

import os
import subprocess

import pytest


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


@pytest.mark.parametrize("code", [1, 2, 137])
def test_slurm_does_not_queue_again_on_a_failure(cluster, repository, code):
    done, lines = slurm(cluster, repository, code)
    assert len(lines) == 1
    assert done.returncode == code


def tpu(cluster, tmp_path, endings):
    """Run tpu_vm.sh against hosts that end, call by call, as the lists of codes in `endings` say."""
    for call, codes in enumerate(endings):
        (tmp_path / f"call{call}").write_text("".join(f"jaxbio exited with {code}\n" for code in codes))
    body = f"""
case "$*" in
  *describe*) echo READY ;;
  *) calls=$(ls {tmp_path}/done* 2>/dev/null | wc -l); touch {tmp_path}/done$calls; cat {tmp_path}/call$calls ;;
esac"""
    return cluster(
        "tpu_vm.sh", "--workdir", "a b", commands={"gcloud": body}, TPU="pod", ZONE="europe-west4-b", WAIT_S="0"
    )


def test_tpu_starts_the_launch_line_on_every_host(cluster, tmp_path):
    done, lines = tpu(cluster, tmp_path, [[0, 0]])
    assert done.returncode == 0
    assert len(lines) == 1
    assert "--worker=all" in lines[0]
    assert r"launch/run.py --workdir a\ b; echo jaxbio exited with $?" in lines[0]


@pytest.mark.parametrize(
    "first", [[75, 75], [0, 75], [], [69, 69]], ids=["preempted", "one_of_two", "all_lost", "one_lost"]
)
def test_tpu_starts_again_when_preempted_or_lost(cluster, tmp_path, first):
    done, lines = tpu(cluster, tmp_path, [first, [0, 0]])
    assert done.returncode == 0
    assert [("describe" in line) for line in lines] == [False, True, False]


@pytest.mark.parametrize("codes", [[2, 2], [75, 1], [1, 75], [0, 1]])
def test_tpu_ends_on_a_failure(cluster, tmp_path, codes):
    done, lines = tpu(cluster, tmp_path, [codes])
    assert done.returncode in (1, 2)
    assert len(lines) == 1


@pytest.mark.parametrize("codes", [[69, 137], [137, 69]])
def test_tpu_ends_when_the_host_that_was_gone_says_how_it_ended(cluster, tmp_path, codes):
    done, lines = tpu(cluster, tmp_path, [codes])
    assert done.returncode == 137
    assert len(lines) == 1


def test_tpu_wants_a_name(cluster, tmp_path, repository):
    done = subprocess.run(
        ["bash", repository / "launch" / "tpu_vm.sh"], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode != 0
    assert "name the TPU" in done.stderr


def test_the_jobset_starts_the_same_line_and_tells_75_from_failure(repository):
    text = (repository / "launch" / "gke_jobset.yaml").read_text()
    assert "exec python launch/run.py" in text
    ignored, refused = text.index("operator: In, values: [75]"), text.index("operator: In, values: [2]")
    assert text.rindex("action:", 0, ignored) == text.index("action: Ignore")
    assert text[text.rindex("action:", 0, refused) :].startswith("action: FailJob\n")
