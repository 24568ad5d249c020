"""Whether a run fits its devices, before there are any: the training step compiled for a described topology.

    plan = make_plan(config, open_topology(parse_topology("v5e:16x16")))
    plan.fits, plan.record()

Evaluation is left out: it holds the same state, and no gradients.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.data.batch import batch_spec, per_element
from jaxbio.objectives import Network, make_objective
from jaxbio.planning import flops
from jaxbio.planning.collectives import Collectives, count_collectives
from jaxbio.planning.compiled_text import find_host_transfers
from jaxbio.planning.demand import NOTHING_ASKED, Asked, Demand, make_demand
from jaxbio.training import performance, sharding
from jaxbio.training.memory import compile_or_refuse, remedies
from jaxbio.training.program import lay_out, lower_train_step
from jaxbio.training.run_data import RunData

log = logging.getLogger(__name__)


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
    `least_step_s` is FLOPs over peak, a bound that no run reaches; None where the peak is unknown. `demand` is what the
    run asks of time and of its hosts, `host_transfers` what in the step waits for its host; `largest_batch` is the
    largest batch that fits, where that was looked for.
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
    host_transfers: tuple[str, ...]
    compile_s: float
    remedies: tuple[str, ...]
    demand: Demand
    largest_batch: int | None = None

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
        del plain["collectives"], plain["remedies"], plain["demand"]
        traffic = self.collectives
        return {
            "fits": self.fits,
            "needed_bytes": self.needed_bytes,
            "headroom_bytes": None if self.needed_bytes is None else self.memory_bytes - self.needed_bytes,
            **plain,
            "collectives": traffic and {kind: moved._asdict() for kind, moved in traffic.by_kind.items()},
            "loops_of_unknown_length": traffic and traffic.unknown_loops,
            **self.demand.record(),
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
            *self.demand.lines(),
            *([f"largest batch that fits: {self.largest_batch}"] if self.largest_batch else []),
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
            f"a step that waits for its host: {', '.join(sorted(set(self.host_transfers))) or 'no'}",
        ]

    def _verdict(self) -> str:
        if self.needed_bytes is not None and self.fits:
            left = self.memory_bytes - self.needed_bytes
            return f"fits: {_gib(self.needed_bytes)} of {_gib(self.memory_bytes)} GiB, {_gib(left)} to spare"
        asked = "more than" if self.needed_bytes is None else f"{_gib(self.needed_bytes)} of"
        return "\n  try ".join([f"does not fit: {asked} {_gib(self.memory_bytes)} GiB", *self.remedies])


def make_plan(
    config: ConfigDict,
    devices: Sequence[jax.Device],
    networks: Mapping[str, Network] = {},
    data: RunData | None = None,
    asked: Asked = NOTHING_ASKED,
) -> Plan:
    """Compile the training step of `config` for `devices` and return what it needs; takes minutes for a TPU.

    `networks` are those that the objective uses and does not train, by name; their shapes suffice. `data` are those of
    the run, where they are known.

    Raises UserError when mesh, rules, groups or batch do not go with the model or the devices, ValueError for devices
    whose memory is unknown.
    """
    memory_bytes = performance.memory_of(devices)
    if memory_bytes is None:
        raise ValueError(f"the memory of {devices[0].device_kind} is unknown: add it to jaxbio/training/performance.py")
    objective = make_objective(config, networks)
    sizes = sharding.mesh_sizes(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, len(devices))
    layout = lay_out(config, objective, sharding.network_order(sizes, devices), data.resident if data else None)
    state_bytes = layout.placement.bytes_by_part
    lowered = lower_train_step(config, objective, layout)
    log.info("compiling; for a TPU this takes minutes")
    started = time.monotonic()
    compiled, refused = compile_or_refuse(lowered)
    compile_s = time.monotonic() - started
    count = flops.step_products(config, networks)
    text = None if compiled is None else compiled.as_text()
    traffic = None if text is None else count_collectives(text)
    peak = performance.peak_flops_per_s(devices[0].device_kind, "bfloat16")  # no type of product is faster
    return Plan(
        devices=len(devices),
        device_kind=devices[0].device_kind,
        mesh=dict(layout.mesh.shape),
        batch=config.train.batch,
        parameters=int(parameter_overview.count_parameters(layout.abstract.params)),
        memory_bytes=memory_bytes,
        state_bytes=state_bytes,
        next_batch_bytes=0 if layout.resident else batch_bytes_per_device(config, layout.mesh),
        step=None if compiled is None else step_bytes(compiled),
        refused=refused,
        flops=count.total,
        least_step_s=None if peak is None else count.total / (len(devices) * peak),
        collectives=traffic,
        host_transfers=() if text is None else find_host_transfers(text),
        compile_s=compile_s,
        remedies=remedies(
            config,
            layout.mesh.shape,
            objective.coupled,
            sum(state_bytes.values()),
            layout.resident.bytes_per_device if layout.resident else 0,
            memory_bytes,
        ),
        demand=make_demand(config, devices, count, state_bytes, traffic, data, asked),
    )


def find_largest_batch(config: ConfigDict, fits: Callable[[ConfigDict], bool], ways: int) -> int | None:
    """Return the largest batch for which `fits` holds, of train.batch times powers of two; None where none does.

    Each is a compilation. A batch is at least an element for each of the `ways` parts it is split into.
    """

    def holds(batch: int) -> bool:
        return fits(fields.change(config.copy_and_resolve_references(), {"train.batch": batch}))

    batch, least = config.train.batch, ways * per_element(config) * config.train.microbatches
    if holds(batch):
        while holds(2 * batch):
            batch *= 2
        return batch
    while batch % (2 * least) == 0:
        batch //= 2
        if holds(batch):
            return batch
    return None


def table(plans: Mapping[str, Plan]) -> str:
    """Return a line for each plan, by the name of its topology."""
    names = ("topology", "devices", "fits", "GiB", "of", "step, s", "bound", "chip-hours")
    lines = ["{:14} {:>7} {:>5} {:>7} {:>6} {:>9} {:>8} {:>11}".format(*names)]
    for name, plan in plans.items():
        roofline, hours = plan.demand.roofline, plan.demand.hours.get("steps")
        needed = "-" if plan.needed_bytes is None else _gib(plan.needed_bytes)
        least = ("-", "-") if roofline is None else (f"{roofline.step_s:.4g}", roofline.bound)
        chip_hours = "-" if hours is None else f"{hours['chip_hours']:,.1f}"
        lines.append(
            f"{name:14} {plan.devices:>7} {'yes' if plan.fits else 'no':>5} {needed:>7} {_gib(plan.memory_bytes):>6} "
            f"{least[0]:>9} {least[1]:>8} {chip_hours:>11}"
        )
    return "\n".join(lines)


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


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f}"
