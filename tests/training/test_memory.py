"""A run that wants for memory ends with what to lower, and with no other error's words."""

import jax
import jax.numpy as jnp
import pytest
from array_data import array_program

from jaxbio.config.faults import UserError


@pytest.fixture(scope="module")
def program():
    return array_program(devices=jax.devices()[:1])


def test_a_device_that_lacks_memory_says_what_to_lower(program):
    with (
        pytest.raises(UserError, match="it does not suffice") as refused,
        program.explaining_memory(program.config, program.objective),
    ):
        jnp.zeros(2**45)
    (fault,) = refused.value.faults
    assert "Out of memory" in fault.value
    assert "\n  try --config.train.microbatches=2" in fault.remedy
    assert "a smaller train.batch" in fault.remedy


def test_other_errors_of_a_device_stay_what_they_are(program):
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        program.explaining_memory(program.config, program.objective),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: no want of memory")
