"""Libraries that only some formats need: imported when such a file is read, or named with what installs them.

h5py = need("h5py")
"""

import importlib
from typing import Any

from jaxbio.config.faults import Fault, UserError


def need(library: str) -> Any:
    """Return the module `library`; raises UserError with the line that installs it where it is not there."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        remedy = f"this format is read by {library}: pip install -c constraints.txt -e '.[prepare]'"
        raise UserError(Fault("--source", f"{error}", remedy)) from None
