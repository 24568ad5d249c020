"""The cache of compiled programs: counted, the same to the bit, and no reason to fail where an entry is damaged."""

import logging
import re

import jax
import pytest
from array_data import array_program, exact_values, run
from jax.experimental.compilation_cache import compilation_cache

SETTINGS = {"train__steps": 4, "log__every_steps": 2, "checkpoint__every_steps": 4, "eval__every_steps": 4}


@pytest.fixture
def cached(tmp_path):
    """Return a function that makes JAX keep every program in a folder, or none where it is None."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}

    def use(folder):
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    yield use
    compilation_cache.reset_cache()
    for name, value in before.items():
        jax.config.update(name, value)


def build(caplog):
    """Return a program and what was said of the cache when it was compiled."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="jaxbio.training.program"):
        program = array_program(**SETTINGS)
    (said,) = re.findall(r"compiled in [\d.]+ s \((.*?)\)", caplog.text)
    return program, said


@pytest.mark.slow
def test_a_second_start_takes_its_programs_from_the_cache_and_computes_the_same_bits(cached, tmp_path, caplog):
    found = {}
    for name, folder in (("uncached", None), ("first", tmp_path / "cache"), ("second", tmp_path / "cache")):
        cached(folder)
        program, said = build(caplog)
        run(program, tmp_path / name)
        found[name] = said, exact_values(tmp_path / name)
    assert found["uncached"][0] == "no cache of compiled programs"
    assert found["first"][0] == f"0 of 3 programs from {tmp_path}/cache"
    assert found["second"][0] == f"3 of 3 programs from {tmp_path}/cache"
    assert found["uncached"][1] == found["first"][1] == found["second"][1]


def test_a_damaged_entry_is_compiled_anew_with_a_warning(cached, tmp_path, caplog):
    cached(tmp_path)
    build(caplog)
    entries = [path for path in tmp_path.iterdir() if path.name.startswith("jit_dispatch")]
    assert len(entries) == 2
    for path in entries:
        path.write_bytes(path.read_bytes()[:-100])
    cached(tmp_path)
    with pytest.warns(UserWarning, match="persistent compilation cache"):
        _, said = build(caplog)
    assert said.startswith("1 of 3 ")
