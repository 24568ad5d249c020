"""Machine settings: named changes of *machine* fields, kept apart from what a recipe says of the science.

They are chosen beside a recipe's own presets and those of its model (`families/`), and only ever touch fields tagged
machine:

    launch/run.py --config configs/qualityfm_large.py:gpu
    launch/run.py --config configs/qualityfm_large.py:tpu,fsdp
"""

from typing import Any

MACHINES: dict[str, dict[str, Any]] = {
    # Tensor cores want bfloat16; attention over 18 tokens is dense, so products dominate.
    "gpu": {
        "mesh.platform": "gpu",
        "precision.compute": "bfloat16",
        "data.cache": "host",
        "train.steps_per_dispatch": 1,
    },
    # A step of a small model is shorter than a dispatch over a pod: several steps a call.
    "tpu": {
        "mesh.platform": "tpu",
        "precision.compute": "bfloat16",
        "data.cache": "host",
        "train.steps_per_dispatch": 10,
    },
    # Parameters, gradients and moments split over eight devices: for memory, not for speed.
    "fsdp": {"mesh.fsdp": 8, "mesh.rules": ((".*", "fsdp"),)},
}
