"""A plan against the run that it plans: bytes, FLOPs, traffic, verdict, what to try, and the command."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.batch import batch_spec
from jaxbio.objectives import make_objective
from jaxbio.planning.flops import model_flops
from jaxbio.planning.plan import make_plan
from jaxbio.training.memory import compile_or_refuse, remedies
from jaxbio.training.program import lay_out
from jaxbio.training.sharding import batch_sharding
from jaxbio.training.step import init_state

SMALL = {
    "model.width": 100,
    "model.layers": 1,
    "model.window": None,
    "data.channels": ("ppg",),
    "data.segment_s": 5.0,
    "train.batch": 16,
}


def small_config(**changes):
    return fields.change(fields.defaults("qualityfm", "quality_distillation"), SMALL | changes)


@pytest.fixture(scope="module")
def plan():
    return make_plan(small_config(), jax.devices())


@pytest.mark.slow
def test_a_plan_counts_the_bytes_that_a_run_holds(plan):
    config = small_config()
    objective = make_objective(config)
    layout = lay_out(config, objective)
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in batch_spec(config).items()}
    batch = jax.device_put(zeros, batch_sharding(layout.mesh))
    state = init_state(config, objective, layout.optimizer, layout.placement.shardings, batch)
    held = {part: held_bytes(getattr(state, part)) for part in ("params", "opt_state", "objective_state")}
    assert plan.state_bytes == held
    assert plan.next_batch_bytes == held_bytes(batch)


def held_bytes(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_a_step_needs_its_arguments_and_temporaries_and_what_is_updated_in_place_once(plan):
    state = sum(plan.state_bytes.values())
    assert plan.step.aliased == pytest.approx(state, rel=0.01)
    assert plan.needed_bytes == pytest.approx(state + plan.step.temporaries + 2 * plan.next_batch_bytes, rel=0.01)


def test_gradients_are_reduced_once_a_step_over_data(plan):
    assert plan.collectives.unknown_loops == 0
    reduced = plan.collectives.by_kind["all-reduce"].bytes
    assert reduced == pytest.approx(4 * plan.parameters, rel=0.2)


def test_flops_are_the_models_and_a_cpu_has_no_peak(plan):
    assert plan.flops == model_flops(small_config(), 16).total
    assert plan.least_step_s is None


def test_what_needs_no_more_than_there_is_fits(plan):
    assert replace(plan, memory_bytes=plan.needed_bytes).fits
    assert not replace(plan, memory_bytes=plan.needed_bytes - 1).fits


def test_a_plan_that_fits_tells_the_headroom_and_nothing_to_try(plan):
    roomy = replace(plan, memory_bytes=plan.needed_bytes + 5)
    assert roomy.record()["headroom_bytes"] == 5
    assert roomy.record()["try"] == []
    assert roomy.account().splitlines()[-1].startswith("fits: ")


def test_a_plan_that_does_not_fit_says_what_to_try(plan):
    tight = replace(plan, memory_bytes=2**20)
    assert tight.record()["fits"] is False
    assert tight.record()["headroom_bytes"] < 0
    assert tight.record()["try"] == list(tight.remedies)
    assert "does not fit" in tight.account()
    assert all(f"\n  try {remedy}" in tight.account() for remedy in tight.remedies)


def test_a_step_that_the_compiler_refuses_does_not_fit(plan):
    refused = replace(plan, step=None, collectives=None, refused="Ran out of memory on HBM")
    assert refused.record()["fits"] is False
    assert refused.record()["needed_bytes"] is None
    assert "Ran out of memory on HBM" in refused.account()
    assert json.loads(json.dumps(refused.record()))["collectives"] is None


class WantOfMemory(jax.errors.JaxRuntimeError):
    """An error with the status that libtpu gives it; one made in Python has none."""

    error_code_string = "RESOURCE_EXHAUSTED"


class Lowered:
    def __init__(self, error):
        self.error = error

    def compile(self):
        raise self.error


def test_only_a_want_of_memory_is_a_refusal():
    said = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM.\nSee the web."
    refused = compile_or_refuse(Lowered(WantOfMemory(said)))
    assert refused == (None, "E1000: CompileTimeHbmOom: Ran out of memory on HBM.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_or_refuse(Lowered(jax.errors.JaxRuntimeError("INTERNAL: a fault of the compiler")))


def test_a_want_of_memory_is_known_by_its_status_not_by_its_words():
    with pytest.raises(jax.errors.JaxRuntimeError) as refused:
        jnp.zeros(2**45)
    assert compile_or_refuse(Lowered(refused.value))[1].startswith("Out of memory allocating")
    with pytest.raises(jax.errors.JaxRuntimeError, match="quoting"):
        compile_or_refuse(Lowered(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: quoting another error")))


GIB = 2**30
MESH = {"data": 16, "fsdp": 1, "tensor": 1}


def tried(config, mesh=MESH, coupled=False, state_bytes=GIB, resident_bytes=0):
    found = remedies(config, mesh, coupled, state_bytes, resident_bytes, 16 * GIB)
    words = [remedy.partition(":")[0] for remedy in found]
    return [word.removeprefix("--config.").removeprefix("--config ") for word in words[:-1]]


def test_activations_are_lowered_first_where_the_state_is_small():
    assert tried(small_config(**{"train.batch": 96}))[:3] == [
        "train.microbatches=2",
        "precision.compute=bfloat16",
        "model.remat=full",
    ]


def test_the_state_is_split_first_where_it_takes_most_of_the_memory():
    assert tried(small_config(), state_bytes=9 * GIB)[0] == "RECIPE"
    first = remedies(small_config(), MESH, False, 9 * GIB, 0, 16 * GIB)[0]
    assert first.startswith("--config RECIPE:fsdp --config.mesh.fsdp=8")


def test_the_data_leave_the_devices_first_where_they_take_most_of_the_memory():
    held = small_config(**{"data.cache": "device"})
    assert tried(held, resident_bytes=9 * GIB)[0] == "data.cache=host"
    assert tried(held, state_bytes=6 * GIB, resident_bytes=4 * GIB)[0] == "RECIPE"
    assert tried(held, resident_bytes=2 * GIB)[0] == "precision.compute=bfloat16"


def test_nothing_is_proposed_that_is_already_so_or_cannot_be():
    done = {"precision.compute": "bfloat16", "model.remat": "full", "train.batch": 16}
    assert tried(small_config(**done), {"data": 2, "fsdp": 8, "tensor": 1}) == []
    assert "train.microbatches=2" not in tried(small_config(**{"train.batch": 96}), coupled=True)
    assert "train.microbatches=9" in tried(small_config(**{"train.batch": 144, "train.microbatches": 3}))
    assert "mesh.moments=zero" in tried(small_config(**{"mesh.moments": "like_params"}))


def test_a_batch_that_does_not_divide_over_the_devices_is_refused_before_compiling():
    with pytest.raises(UserError, match=r"train\.batch = 20"):
        make_plan(small_config(**{"train.batch": 20}), jax.devices())


def run_plan(repository, *flags):
    command = [sys.executable, "tools/plan.py", "--config", "configs/qualityfm_base.py", *flags]
    return subprocess.run(command, cwd=repository, env=os.environ, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_the_command_ends_with_one_line_whatever_comes_out(repository):
    done = run_plan(repository, "--topology", "cpu:4", "--config.train.batch=64")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["fits"] is True
    assert line["devices"] == 4
    assert line["topology"] == "cpu:4"
    assert line["mesh"] == {"data": 4, "fsdp": 1, "tensor": 1}
    assert "fits: " in done.stderr
    done = run_plan(
        repository,
        "--topology",
        "cpu:4",
        "--config.train.batch=1048576",
        "--config.objective.koleo_weight=0.0",
        "--config.objective.variance_weight=0.0",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fits"] is False
    assert "try --config.train.microbatches=2" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--topology", "v9:2x2"], "--topology = 'v9:2x2'"),
        (["--topology", "cpu:7"], "train.batch = 512"),
        (["--topology", "cpu:8", "--mfu", "0"], "argument --mfu: 0: above 0 and at most 1"),
        (["--topology", "cpu:8", "--mfu", "35"], "argument --mfu: 35: above 0 and at most 1"),
        (["--topology", "cpu:8", "--pairs", "0"], "argument --pairs: 0: at least 1"),
        ([], "--topology"),
    ],
)
def test_the_users_faults_end_with_2(repository, flags, said):
    done = run_plan(repository, *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
