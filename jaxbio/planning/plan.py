"""Whether a run fits its devices, before there are any: the training step compiled for a described topology.

    plan = make_plan(config, open_topology(parse_topology("v5e:16x16")))
    plan.fits, plan.record()

Evaluation is left out: it holds the same state, and no gradients.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from jaxbio.data.batch import batch_spec
from jaxbio.objectives import Network, make_objective
from jaxbio.planning import flops
from jaxbio.planning.collectives import Collectives, count_collectives
from jaxbio.training import performance, sharding
from jaxbio.training.program import lay_out, lower_train_step

log = logging.getLogger(__name__)

PARTS = ("params", "opt_state", "objective_state")


@dataclass(frozen=True)
class StepBytes:
    """Bytes that the compiled step holds at one device, as the compiler states them."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    program: int

    @property
    def total(self) -> int:
        """Bytes while the step runs; outputs that take an argument's place count once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.program


@dataclass(frozen=True)
class Plan:
    """What a run would need of each device, and what its step costs.

    Bytes are those of one device; `state_bytes` by part of the state, `next_batch_bytes` what the feed places while a
    step runs. `step` is None where the compiler refused the program for want of memory, `refused` then its words.
    `least_step_s` is FLOPs over peak, a bound that no run reaches; None where the peak is unknown.
    """

    devices: int
    device_kind: str
    mesh: Mapping[str, int]
    batch: int
    parameters: int
    memory_bytes: int
    state_bytes: Mapping[str, int]
    next_batch_bytes: int
    step: StepBytes | None
    refused: str | None
    flops: float
    least_step_s: float | None
    collectives: Collectives | None
    compile_s: float
    remedies: tuple[str, ...]

    @property
    def needed_bytes(self) -> int | None:
        """Bytes that the run needs of a device while it steps; None where the compiler did not get so far."""
        return None if self.step is None else self.step.total + self.next_batch_bytes

    @property
    def fits(self) -> bool:
        """Whether that is no more than there is."""
        return self.needed_bytes is not None and self.needed_bytes <= self.memory_bytes

    def record(self) -> dict[str, Any]:
        """Return the plan as one JSON object, the verdict first."""
        plain = asdict(self)
        del plain["collectives"], plain["remedies"]
        traffic = self.collectives
        return {
            "fits": self.fits,
            "needed_bytes": self.needed_bytes,
            "headroom_bytes": None if self.needed_bytes is None else self.memory_bytes - self.needed_bytes,
            **plain,
            "collectives": traffic and {kind: moved._asdict() for kind, moved in traffic.by_kind.items()},
            "loops_of_unknown_length": traffic and traffic.unknown_loops,
            "try": [] if self.fits else list(self.remedies),
        }

    def account(self) -> str:
        """Return the plan in words and tables; sizes in GiB."""
        held = ", ".join(f"{part} {_gib(size)}" for part, size in self.state_bytes.items())
        lines = [
            f"{self.devices} x {self.device_kind}, mesh {dict(self.mesh)}; {self.parameters:,} parameters; "
            f"a batch of {self.batch} pairs",
            f"state a device, GiB: {held}",
            *self._step_lines(),
            f"FLOPs a step: {self.flops:.4g}"
            + (f"; at the devices' peak {self.least_step_s:.3g} s, a bound" if self.least_step_s else ""),
            *self._collective_lines(),
            self._verdict(),
        ]
        return "\n".join(lines)

    def _step_lines(self) -> list[str]:
        if self.step is None:
            return [f"the compiler refuses the step: {self.refused}"]
        parts = {**asdict(self.step), "next batch": self.next_batch_bytes}
        return ["step a device, GiB: " + ", ".join(f"{part} {_gib(size)}" for part, size in parts.items())]

    def _collective_lines(self) -> list[str]:
        if self.collectives is None:
            return []
        rows = sorted(self.collectives.by_kind.items(), key=lambda row: -row[1].bytes)
        lines = [f"  {kind:20} {moved.runs:>6} times {moved.bytes / 1e6:>12,.1f} MB" for kind, moved in rows]
        unknown = self.collectives.unknown_loops
        return [
            "collectives of a dispatch, a device:" if rows else "no collectives",
            *lines,
            *([f"  at least: {unknown} loops with collectives do not tell their length"] if unknown else []),
        ]

    def _verdict(self) -> str:
        if self.needed_bytes is not None and self.fits:
            left = self.memory_bytes - self.needed_bytes
            return f"fits: {_gib(self.needed_bytes)} of {_gib(self.memory_bytes)} GiB, {_gib(left)} to spare"
        asked = "more than" if self.needed_bytes is None else f"{_gib(self.needed_bytes)} of"
        return "\n  try ".join([f"does not fit: {asked} {_gib(self.memory_bytes)} GiB", *self.remedies])


def make_plan(config: ConfigDict, devices: Sequence[jax.Device], networks: Mapping[str, Network] = {}) -> Plan:
    """Compile the training step of `config` for `devices` and return what it needs; takes minutes for a TPU.

    `networks` are those that the objective uses and does not train, by name; their shapes suffice.

    Raises UserError when mesh, rules, groups or batch do not go with the model or the devices, ValueError for devices
    whose memory is unknown.
    """
    memory_bytes = performance.memory_of(devices)
    if memory_bytes is None:
        raise ValueError(f"the memory of {devices[0].device_kind} is unknown: add it to jaxbio/training/performance.py")
    objective = make_objective(config, networks)
    sizes = sharding.mesh_sizes(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, len(devices))
    layout = lay_out(config, objective, sharding.network_order(sizes, devices))
    rows = layout.placement.rows
    state_bytes = {part: sum(row.bytes_per_device for row in rows if row.path.startswith(part)) for part in PARTS}
    lowered = lower_train_step(config, objective, layout)
    log.info("compiling; for a TPU this takes minutes")
    started = time.monotonic()
    compiled, refused = compile_or_refuse(lowered)
    compile_s = time.monotonic() - started
    step_flops = flops.model_flops(config, config.train.batch, networks).total
    peak = performance.peak_flops_per_s(devices[0].device_kind, "bfloat16")  # no type of product is faster
    return Plan(
        devices=len(devices),
        device_kind=devices[0].device_kind,
        mesh=dict(layout.mesh.shape),
        batch=config.train.batch,
        parameters=int(parameter_overview.count_parameters(layout.abstract.params)),
        memory_bytes=memory_bytes,
        state_bytes=state_bytes,
        next_batch_bytes=batch_bytes_per_device(config, layout.mesh),
        step=None if compiled is None else step_bytes(compiled),
        refused=refused,
        flops=step_flops,
        least_step_s=None if peak is None else step_flops / (len(devices) * peak),
        collectives=None if compiled is None else count_collectives(compiled.as_text()),
        compile_s=compile_s,
        remedies=remedies(config, layout.mesh.shape, objective.coupled, sum(state_bytes.values()), memory_bytes),
    )


def compile_or_refuse(lowered: Any) -> tuple[Any, str | None]:
    """Return the compiled program, or None and the compiler's words where the device's memory does not hold it."""
    try:
        return lowered.compile(), None
    except jax.errors.JaxRuntimeError as error:
        if error.error_code_string != "RESOURCE_EXHAUSTED":
            raise
        return None, str(error).partition("\n")[0].removeprefix(f"{error.error_code_string}: ")


def step_bytes(compiled: Any) -> StepBytes:
    """Return the compiler's account of a program's memory at one device."""
    stated = compiled.memory_analysis()
    return StepBytes(
        arguments=stated.argument_size_in_bytes,
        outputs=stated.output_size_in_bytes,
        aliased=stated.alias_size_in_bytes,
        temporaries=stated.temp_size_in_bytes,
        program=stated.generated_code_size_in_bytes,
    )


def batch_bytes_per_device(config: ConfigDict, mesh: jax.sharding.Mesh) -> int:
    """Return the bytes of one dispatch's batches at one device."""
    whole = sum(array.nbytes for array in batch_spec(config).values())
    return config.train.steps_per_dispatch * whole // math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)


def remedies(
    config: ConfigDict, mesh: Mapping[str, int], coupled: bool, state_bytes: int, memory_bytes: int
) -> tuple[str, ...]:
    """Return what lowers the memory of a device, the likeliest to suffice first; `mesh` is its axes' sizes.

    Where the state alone takes most of the memory that is to split it, else to hold fewer activations.
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
    of_activations = []
    if rows > 1 and not coupled:
        least = next(factor for factor in range(2, rows + 1) if rows % factor == 0)
        of_activations.append(f"--config.train.microbatches={parts * least}: fewer pairs at once")
    if config.precision.compute == "float32":
        of_activations.append("--config.precision.compute=bfloat16: activations of half the size")
    if config.model.get("remat", "full") != "full":
        of_activations.append("--config.model.remat=full: activations computed twice instead of held")
    first, second = (of_state, of_activations) if 2 * state_bytes > memory_bytes else (of_activations, of_state)
    return (*first, *second, "a larger topology, or a smaller train.batch")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f}"
