"""A compiled program's text: instructions by what they do, and everything that waits for the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.planning.compiled_text import count_operations, find_host_transfers


def text_of(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_instructions_are_counted_by_what_they_do():
    hlo = """
%fused (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %t = f32[8,4]{1,0} transpose(%p), dimensions={1,0}
}
ENTRY %main (x: f32[4,8]) -> bf16[8,4] {
  %x = f32[4,8]{1,0} parameter(0)
  %turned = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %half = bf16[8,4]{1,0} convert(%turned)
}
"""
    assert count_operations(hlo) == {"parameter": 2, "transpose": 1, "fusion": 1, "convert": 1}


def test_a_function_of_the_host_is_found_and_a_plain_program_has_none():
    x = jnp.ones(3)

    def asks_the_host(x):
        return jax.pure_callback(lambda array: np.asarray(array), jax.ShapeDtypeStruct(x.shape, x.dtype), x) + 1

    (found,) = find_host_transfers(text_of(asks_the_host, x))
    assert "callback" in found
    assert find_host_transfers(text_of(lambda x: x + 1, x)) == ()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%in = ((f32[3]{0}), token[]) infeed(%token)", ("infeed",)),
        ("%out = token[] outfeed(%x, %token)", ("outfeed",)),
        ("%s = (f32[3]{0}, u32[], token[]) send(%x, %token), channel_id=2, is_host_transfer=true", ("send",)),
        ("%s = (f32[3]{0}, u32[], token[]) send(%x, %token), channel_id=2", ()),
        (
            "%s = (f32[3]{0}, u32[], token[]) send(%x, %token), channel_id=5, is_host_transfer=true, "
            'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}',
            (),
        ),
    ],
)
def test_what_a_host_sends_or_gets_is_found_and_what_slices_send_each_other_is_not(line, found):
    assert find_host_transfers(f"ENTRY %main (x: f32[3]) -> f32[3] {{\n  {line}\n}}\n") == found
