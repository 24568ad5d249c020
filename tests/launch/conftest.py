"""The store that runs of the launch line read in these tests."""

import pytest
from tiny_recipe import TINY_RECIPE

from jaxbio.config.command_line import load_recipe
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A synthetic store of the tiny recipe and its index."""
    folder = tmp_path_factory.mktemp("store") / "store"
    prepare_store([parse_source("synthetic:96")], load_recipe(TINY_RECIPE), folder, progress=False)
    return folder
