"""When a device's memory does not suffice: how that is told from other errors, and what to lower.

with explaining_memory(config, mesh.shape, objective.coupled, state_bytes, resident_bytes, memory_bytes):
    state, metrics = program.train_step(state, batches)       # want of memory raises UserError, with what to try
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.training import sharding


def want_of_memory(error: jax.errors.JaxRuntimeError) -> str | None:
    """Return the words of an error that says that a device's memory does not suffice; None for any other."""
    code = error.error_code_string
    return str(error).partition("\n")[0].removeprefix(f"{code}: ") if code == "RESOURCE_EXHAUSTED" else None


@contextlib.contextmanager
def explaining_memory(
    config: ConfigDict,
    mesh: Mapping[str, int],
    coupled: bool,
    state_bytes: int,
    resident_bytes: int,
    memory_bytes: int | None,
) -> Iterator[None]:
    """Raise UserError with what to lower where a device wants for memory inside; see `remedies`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        words = want_of_memory(error)
        if words is None:
            raise
        tries = remedies(
            config, mesh, coupled, state_bytes, resident_bytes, memory_bytes or state_bytes + resident_bytes
        )
        raise UserError(Fault("memory of a device", words, "\n  try ".join(["it does not suffice", *tries]))) from error


def compile_or_refuse(lowered: Any) -> tuple[Any, str | None]:
    """Return the compiled program, or None and the compiler's words where the device's memory does not hold it."""
    try:
        return lowered.compile(), None
    except jax.errors.JaxRuntimeError as error:
        words = want_of_memory(error)
        if words is None:
            raise
        return None, words


def remedies(
    config: ConfigDict,
    mesh: Mapping[str, int],
    coupled: bool,
    state_bytes: int,
    resident_bytes: int,
    memory_bytes: int,
) -> tuple[str, ...]:
    """Return what lowers the memory of a device, the likeliest to suffice first; `mesh` is its axes' sizes.

    `resident_bytes` are those of the data that a device holds (`data.cache=device`). Where they and the state take most
    of the memory that is to hold less of the larger of them, else to hold fewer activations.
    """
    devices, parts = math.prod(mesh.values()), config.train.microbatches
    rows = config.train.batch // (parts * math.prod(mesh[axis] for axis in sharding.BATCH_AXES))
    of_state = []
    if mesh["fsdp"] == 1 and math.gcd(devices, 8) > 1:
        of_state.append(
            f"--config RECIPE:fsdp --config.mesh.fsdp={math.gcd(devices, 8)}: each holds a part of the state"
        )
    if config.mesh.moments != "zero":
        of_state.append("--config.mesh.moments=zero: moments split over data")
    if config.data.cache == "device":
        elsewhere = "--config.data.cache=host: the segments lie in the host's memory"
        of_state.insert(0 if resident_bytes > state_bytes else len(of_state), elsewhere)
    of_activations = []
    if rows > 1 and not coupled and config.data.batching == "pairs":
        least = next(factor for factor in range(2, rows + 1) if rows % factor == 0)
        of_activations.append(f"--config.train.microbatches={parts * least}: fewer pairs at once")
    if config.precision.compute == "float32":
        of_activations.append("--config.precision.compute=bfloat16: activations of half the size")
    if config.model.get("remat", "full") != "full":
        of_activations.append("--config.model.remat=full: activations computed twice instead of held")
    first, second = (
        (of_state, of_activations) if 2 * (state_bytes + resident_bytes) > memory_bytes else (of_activations, of_state)
    )
    return (*first, *second, "more devices, or a smaller train.batch")
