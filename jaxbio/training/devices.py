"""Whether the devices that a run asks for are there: found out before anything is written.

check_devices(config.mesh.platform)
check_same_devices(peers)               # several processes, before minutes of compiling
check_slices(jax.devices())             # several slices of TPUs
"""

import os
from collections.abc import Sequence

import jax

from jaxbio.config.faults import Fault, UserError
from jaxbio.training.peers import Peers

_HOW = {
    "gpu": "for NVIDIA GPUs pip install -c constraints.txt -e '.[cuda]' beside their driver (nvidia-smi shows them)",
    "tpu": "on a TPU host pip install -c constraints.txt -e '.[tpu]'",
}

_SLICES = "MEGASCALE_NUM_SLICES"  # in the environment of every host of several slices


def check_devices(platform: str = "any") -> None:
    """Start JAX's devices; raise UserError where those of JAX_PLATFORMS, or of `platform`, are not there.

    `platform` is a value of mesh.platform; any is what JAX finds.
    """
    asked = jax.config.jax_platforms  # type: ignore[attr-defined]  # of JAX_PLATFORMS
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter for cuda where JAX has no plugin of it
        reason = " ".join(str(error).split()) or "this JAX knows no such devices"
        how = _HOW.get({"cuda": "gpu", "rocm": "gpu"}.get(asked or "", asked or ""), "names are cpu, cuda, rocm, tpu")
        remedy = f"JAX cannot use it on this machine: {reason.removesuffix('.')}; unset it to use what is there; {how}"
        raise UserError(Fault("JAX_PLATFORMS", asked, remedy)) from None
    if platform not in ("any", found):
        how = _HOW.get(platform, "unset JAX_PLATFORMS")
        remedy = f"JAX finds no {platform} on this machine, only {found}: leave out :{platform} to run there; {how}"
        raise UserError(Fault("mesh.platform", platform, remedy))


def check_same_devices(peers: Peers) -> None:
    """See that every process has as many devices as the others, of the same kind; raises EndedByPeer in all of them."""
    found = jax.local_devices()
    values = {"devices of a process": len(found), "kind of its devices": found[0].device_kind}
    remedy = (
        "alike everywhere: a mesh has as many of each host; look at what hides some (CUDA_VISIBLE_DEVICES, the job)"
    )
    peers.agree("the devices", values, dict.fromkeys(values, remedy))


def check_slices(devices: Sequence[jax.Device]) -> None:
    """Raise UserError where a slice is missing of those that the environment of several slices of TPUs announces."""
    announced = os.environ.get(_SLICES)
    if announced is None or devices[0].platform != "tpu":
        return
    found = {getattr(device, "slice_index", 0) for device in devices}
    missing = ", ".join(str(number) for number in range(int(announced)) if number not in found)
    if missing:
        remedy = (
            f"JAX finds TPUs of slice {', '.join(map(str, sorted(found)))} alone, none of {missing}: start the line on "
            "every host of every slice, with its MEGASCALE_SLICE_ID and one MEGASCALE_COORDINATOR_ADDRESS for all"
        )
        raise UserError(Fault(_SLICES, announced, remedy))
