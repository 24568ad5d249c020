import os
import subprocess
import sys

import numpy as np
import pytest
from jax import export

from jaxbio.export import pretrained
from jaxbio.export.card import EXAMPLE, PROGRAM
from jaxbio.transforms.prepare_input import prepare_physical

# What a stranger writes who has jax, numpy and safetensors, and no jaxbio.
STRANGER = """
import sys
from pathlib import Path
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder = Path(sys.argv[1])
weights = {}
for name, array in load_file(folder / "params.safetensors").items():
    *parents, leaf = name.split("/")
    node = weights
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = array
encode = export.deserialize(bytearray((folder / "encoder.stablehlo").read_bytes())).call
inputs = np.load(sys.argv[2])
np.savez(sys.argv[3], **{name: encode(weights, inputs[name]) for name in inputs.files})
assert not [name for name in sys.modules if name.startswith(("jaxbio", "flax"))]
"""


@pytest.fixture(scope="module")
def inputs(export_folder):
    rng = np.random.default_rng(1)
    return {
        "example": np.load(export_folder / EXAMPLE)["x_BCT"],
        "another_batch": rng.uniform(40, 180, (5, 2, 9000)).astype(np.float32),
        "another_length": rng.uniform(-1, 1, (3, 2, 3000)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def outputs(export_folder, inputs, tmp_path_factory):
    """What a process without jaxbio gets from the program."""
    tmp_path = tmp_path_factory.mktemp("stranger")
    np.savez(tmp_path / "inputs.npz", **inputs)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    subprocess.run(
        [sys.executable, "-c", STRANGER, export_folder, tmp_path / "inputs.npz", tmp_path / "outputs.npz"],
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    return dict(np.load(tmp_path / "outputs.npz"))


def test_a_process_without_jaxbio_gets_the_examples_output(export_folder, outputs):
    expected = np.load(export_folder / EXAMPLE)["tok_BLD"]
    np.testing.assert_allclose(outputs["example"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "shape"), [("another_batch", (5, 18, 502)), ("another_length", (3, 6, 502))])
def test_batch_and_length_are_free(export_folder, inputs, outputs, name, shape):
    assert outputs[name].shape == shape
    model = pretrained.load_pretrained(export_folder, check=False)
    expected = model.encode(prepare_physical(inputs[name], model.card.inputs))
    np.testing.assert_allclose(outputs[name], expected, atol=1e-5, rtol=0)


def test_one_small_file_serves_cpu_cuda_and_tpu(export_folder):
    program = (export_folder / PROGRAM).read_bytes()
    assert len(program) < 128 * 1024
    assert export.deserialize(bytearray(program)).platforms == ("cpu", "cuda", "tpu")
