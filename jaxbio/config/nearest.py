"""The field that somebody meant by a name that is none.

nearest("optimizer.lr", table)     # "optimizer.learning_rate"
"""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the field of `known` that is nearest to `name`; where none is near, where the fields are written down.

    Looked for by the last part, spelt alike or as initials (lr, wd), first in the section that `name` gives and then in
    all; then by the whole name.
    """
    section, _, leaf = name.rpartition(".")
    everywhere = {field: field.rpartition(".")[2] for field in known}
    in_section = {field: last for field, last in everywhere.items() if field.rpartition(".")[0] == section}
    for fields in (in_section, everywhere):
        for field, last in fields.items():
            initials = "".join(word[0] for word in last.split("_"))
            if leaf == last or (len(leaf) > 1 and leaf == initials):
                return field
        close = difflib.get_close_matches(leaf, fields.values(), n=1, cutoff=0.6)
        if close:
            return next(field for field, last in fields.items() if last == close[0])
    whole = difflib.get_close_matches(name, everywhere, n=1, cutoff=0.6)
    return whole[0] if whole else "one of jaxbio/config/fields.py"
