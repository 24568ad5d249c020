"""Peaks, MFU, memory, and the bench command."""

import json
import os
import subprocess
import sys

import pytest
from simulated import xla_flags

from jaxbio.training.performance import device_memory_bytes, memory, mfu, peak_flops_per_s


def test_peaks_are_known_by_kind_and_unknown_elsewhere():
    assert peak_flops_per_s("NVIDIA H100 80GB HBM3", "bfloat16") == 989.4e12
    assert peak_flops_per_s("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops_per_s("TPU v5", "bfloat16") == 459e12
    assert peak_flops_per_s("cpu", "float32") is None


def test_memory_is_known_where_every_device_of_a_kind_has_the_same():
    assert device_memory_bytes("TPU v5 lite") == 15.75 * 2**30
    assert device_memory_bytes("TPU v5") == pytest.approx(95.73 * 2**30, rel=1e-6)
    assert device_memory_bytes("NVIDIA A100-SXM4-80GB") is None
    assert device_memory_bytes("cpu") is None


def test_mfu_is_the_share_of_all_devices_peaks_or_null():
    assert mfu(2 * 98.94e12, 2, "NVIDIA H200", "bfloat16") == pytest.approx(0.1)
    assert mfu(1e12, 1, "cpu", "float32") is None


def test_memory_sees_what_this_process_holds():
    held = memory()
    assert 2**26 < held["host_resident_bytes"] <= held["host_peak_bytes"]
    assert held["device_peak_bytes"] is None  # the CPU backend counts none


@pytest.mark.slow
def test_bench_step_prints_one_line(repository):
    small = {"model.width": 100, "model.layers": 1, "data.channels": "('ppg',)", "data.segment_s": 10.0}
    small |= {"train.batch": 8, "data.streams": 8}
    command = [sys.executable, "tools/bench_step.py", "--config", "configs/qualityfm_base.py", "--repeats", "2"]
    command += [f"--config.{name}={value}" for name, value in small.items()]
    one_device = os.environ | {"XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(command, cwd=repository, env=one_device, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["pairs_per_s"] == pytest.approx(8 / line["step_s"])
    assert line["mfu"] is None
    assert not [name for name in line if name.startswith("roofline")]  # a CPU's rates are unknown
    assert line["batch"] == 8
