"""Machine settings: named changes of *machine* fields, kept apart from what a recipe says of the science.

They are chosen beside a recipe's own presets, and only ever touch fields tagged machine:

    launch/run.py --config configs/qualityfm_large.py:gpu
    launch/run.py --config configs/qualityfm_large.py:tpu,fsdp
"""

from typing import Any

MACHINES: dict[str, dict[str, Any]] = {
    # Tensor cores want bfloat16; attention over 18 tokens is dense, so products dominate.
    "gpu": {"precision.compute": "bfloat16", "data.cache": "host", "train.steps_per_dispatch": 1},
    # A step of a small model is shorter than a dispatch over a pod: several steps a call.
    "tpu": {"precision.compute": "bfloat16", "data.cache": "host", "train.steps_per_dispatch": 10},
    # Parameters, gradients and moments split over eight devices: for memory, not for speed.
    "fsdp": {"mesh.fsdp": 8, "mesh.rules": ((".*", "fsdp"),)},
    # Heads and feed-forward width of QualityFM's blocks over four devices; base and medium have four heads.
    "tensor": {
        "mesh.tensor": 4,
        "mesh.rules": (
            ("blocks/attention/qkv/kernel$", (None, None, "tensor")),
            ("blocks/attention/qkv/bias$", (None, "tensor")),
            ("blocks/attention/output/kernel$", (None, "tensor")),
            ("blocks/feedforward_in/kernel$", (None, None, "tensor")),
            ("blocks/feedforward_in/bias$", (None, "tensor")),
            ("blocks/feedforward_out/kernel$", (None, "tensor")),
            (".*", "replicate"),
        ),
    },
    # Recompute a block in the gradient: a third more products, a fraction of the activations.
    "remat": {"model.remat": "full"},
}
