"""Collectives counted in HLO text: of programs whose traffic is known, and in forms that only a TPU's text has."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxbio.planning.collectives import count_collectives
from jaxbio.training.sharding import make_mesh


def test_what_a_compiled_loop_reduces_counts_as_often_as_it_runs():
    mesh = make_mesh(8, 1, 1)
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, None, "data"))

    def layers(x, kernels):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel) @ kernel.T, None), x, kernels)[0]

    arguments = jax.ShapeDtypeStruct((16, 32), jnp.float32), jax.ShapeDtypeStruct((7, 32, 64), jnp.float32)
    compiled = jax.jit(layers, in_shardings=(whole, split), out_shardings=whole).lower(*arguments).compile()
    counted = count_collectives(compiled.as_text())
    assert counted.by_kind == {"all-reduce": (7, 7 * 16 * 32 * 4)}
    assert counted.unknown_loops == 0


def test_what_a_compiled_program_gathers_counts_whole():
    mesh = make_mesh(8, 1, 1)
    gather = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
    x = jax.ShapeDtypeStruct((16, 3), jnp.int16, sharding=NamedSharding(mesh, P("data")))
    assert count_collectives(gather.lower(x).compile().as_text()).by_kind == {"all-gather": (1, 16 * 3 * 2)}


LOOP = """
%body (param: (s32[], f32[64])) -> (s32[], f32[64]) {{
  %param = (f32[64]{{0:T(64)}}, s32[]{{:T(128)}}) parameter(0)
  %value = f32[64]{{0:T(64)S(1)}} get-tuple-element(%param), index=0
  %index = s32[]{{:T(128)}} get-tuple-element(%param), index=1
  %step = s32[]{{:T(128)}} constant({step})
  %next = s32[]{{:T(128)}} add(%index, %step)
  %sum = f32[64]{{0:T(64)S(1)}} all-reduce(%value), channel_id=1, to_apply=%add
  ROOT %tuple = (f32[64]{{0:T(64)}}, s32[]{{:T(128)}}) tuple(%sum, /*index=1*/%next)
}}

%condition (param.1: (f32[64], s32[])) -> pred[] {{
  %other = s32[]{{:T(128)}} constant(1000)
  %bound = s32[]{{:T(128)}} {bound}
  %index.1 = s32[]{{:T(128)}} get-tuple-element(%param.1), index=1
  ROOT %lt = pred[]{{:T(512)}} compare(%index.1, %bound), direction=LT
}}

ENTRY %main (x: f32[64]) -> f32[64] {{
  %loop = (f32[64]{{0:T(64)}}, s32[]{{:T(128)}}) while(%tuple), condition=%condition, body=%body{note}
}}
"""


@pytest.mark.parametrize(
    ("bound", "step", "note", "runs", "unknown"),
    [
        ("constant(50)", 1, "", 50, 0),
        ("constant(8)", 2, "", 4, 0),
        ("constant(7)", 2, "", 4, 0),
        ("parameter(1)", 1, "", 1, 1),
        ("parameter(1)", 1, ', backend_config={"known_trip_count":{"n":"3"}}', 3, 0),
    ],
)
def test_a_loop_tells_its_length_by_note_or_counter_or_is_said_not_to(bound, step, note, runs, unknown):
    counted = count_collectives(LOOP.format(bound=bound, step=step, note=note))
    assert counted.by_kind == {"all-reduce": (runs, runs * 256)}
    assert counted.unknown_loops == unknown


def test_a_reduction_fused_with_its_split_is_a_reduce_scatter_of_the_whole():
    hlo = """
%all-reduce-scatter.clone.1 (input.2: f32[256,512]) -> f32[64,512] {
  %input.2 = f32[256,512]{1,0:T(8,128)} parameter(0)
  %all-reduce.4 = f32[256,512]{1,0:T(8,128)} all-reduce(%input.2), channel_id=4, to_apply=%add
}
ENTRY %main (x: f32[256,512]) -> f32[64,512] {
  ROOT %fusion.24 = f32[64,512]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.clone.1
}
"""
    assert count_collectives(hlo).by_kind == {"reduce-scatter": (1, 256 * 512 * 4)}


def test_a_plain_reduce_scatter_counts_what_goes_in():
    hlo = """
ENTRY %main (x: bf16[256]) -> bf16[64] {
  %x = bf16[256]{0} parameter(0)
  ROOT %part = bf16[64]{0} reduce-scatter(%x), channel_id=4, dimensions={0}, to_apply=%add
}
"""
    assert count_collectives(hlo).by_kind == {"reduce-scatter": (1, 512)}


def test_a_collective_in_pieces_through_a_loop_runs_once():
    piece = "  %{name} = bf16[64]{{0}} all-gather(%p), channel_id=9, dimensions={{0}}\n}}\n"
    names = ("fused_computation.1", "async_collective_fusion.2", "fused_computation.3")
    hlo = "".join(f"%{name} (p: bf16[8]) -> bf16[64] {{\n" + piece.format(name=f"g{name[-1]}") for name in names)
    hlo += """
%body (param: (s32[], f32[64])) -> (s32[], f32[64]) {
  %middle = bf16[64]{0} fusion(%param), kind=kOutput, calls=%async_collective_fusion.2
}
ENTRY %main (x: f32[64]) -> f32[64] {
  %start = bf16[64]{0} fusion(%x), kind=kCustom, calls=%fused_computation.1
  %loop = (s32[], f32[64]{0}) while(%tuple), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"50"}}
  %done = bf16[64]{0} fusion(%loop), kind=kCustom, calls=%fused_computation.3
}
"""
    assert count_collectives(hlo).by_kind == {"all-gather": (1, 128)}


def test_an_asynchronous_collective_counts_at_its_end_alone():
    hlo = """
%wrapped (p: f32[8]) -> f32[64] {
  %g = f32[64]{0} all-gather(%p), channel_id=2, dimensions={0}
}
ENTRY %main (x: f32[64]) -> f32[64] {
  %start = (f32[8]{0}, f32[64]{0}) all-gather-start(%x), channel_id=1, dimensions={0}
  %done = f32[64]{0} all-gather-done(%start)
  %astart = ((f32[8]{0}), f32[64]{0}, s32[]) async-start(%x), calls=%wrapped
  %adone = f32[64]{0} async-done(%astart), calls=%wrapped
}
"""
    assert count_collectives(hlo).by_kind == {"all-gather": (2, 512)}


def test_a_tuple_counts_all_it_holds_and_a_branch_what_is_in_it():
    hlo = """
%taken (p: f32[]) -> f32[] {
  %both = (f32[]{:T(128)}, pred[3]{0}, /*index=2*/s8[5]{0}) all-reduce(%a, %b, %c), channel_id=1, to_apply=%add
}
%not_taken (q: f32[]) -> f32[] {
  %q = f32[] parameter(0)
}
ENTRY %main (x: f32[]) -> f32[] {
  %either = (f32[]) conditional(%flag, %x, %x), branch_computations={%taken, %not_taken}, metadata={op_name="a"}
}
"""
    assert count_collectives(hlo).by_kind == {"all-reduce": (1, 4 + 3 + 5)}


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        count_collectives("HloModule empty\n")
