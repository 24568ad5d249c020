"""What a profile says of a GPU's time, on made events; and that a CPU's profile holds no GPU."""

import jax
import jax.numpy as jnp
import pytest

from jaxbio.training.gpu_profile import read_device_time, summarise

MS = 1e6


def test_overlapping_kernels_are_busy_once_and_gaps_are_not():
    found = summarise([("a", 0, 2 * MS), ("b", 1 * MS, 3 * MS), ("c", 1.5 * MS, 2 * MS), ("a", 5 * MS, 6 * MS)])
    assert found.span_s == pytest.approx(6e-3)
    assert found.busy_s == pytest.approx(4e-3)


def test_kernels_come_longest_first_with_all_their_calls():
    found = summarise([("short", 0, MS), ("long", MS, 3 * MS), ("short", 3 * MS, 3.5 * MS)])
    assert [(kernel.name, kernel.calls) for kernel in found.kernels] == [("long", 1), ("short", 2)]
    assert [kernel.seconds for kernel in found.kernels] == pytest.approx([2e-3, 1.5e-3])


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("nvjet_sm90_tst_128x128_64x6_2x1_v_bz_NNT", True),
        ("gemm_fusion_dot_12", True),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32", True),
        ("loop_compare_convert_multiply_select_fusion_1", False),
        ("memcpy128", False),
        ("input_add_reduce_fusion", False),
    ],
)
def test_products_are_known_by_their_kernels_names(name, product):
    assert summarise([(name, 0, MS)]).products_s == pytest.approx(1e-3 * product)


@pytest.mark.gpu
def test_a_product_on_a_gpu_is_found_in_its_profile(tmp_path):
    x = jnp.ones((2048, 2048), jnp.bfloat16)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        product(x).block_until_ready()
    assert read_device_time(tmp_path).products_s > 0


def test_a_profile_of_a_cpu_has_no_gpus_time_and_an_empty_folder_no_profile(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no profile"):
        read_device_time(tmp_path)
    with jax.profiler.trace(str(tmp_path)):
        jnp.ones(4).block_until_ready()
    assert read_device_time(tmp_path) is None
