"""Subjects who are one patient under several names: they hold copies of each other's segments.

Archives repeat a recording under other names, whole or in part. Where one of them goes the others go too. It knows
fingerprints, no signals.

    group_S = join_subjects(code_R, fingerprint_R)
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxbio.data.seen import are_among


def join_subjects(code_R: np.ndarray, fingerprint_R: np.ndarray) -> np.ndarray:
    """Return the group of each subject, (subjects,) int32: equal of subjects with copies of one segment, and of theirs.

    `code_R` (rows,) are whose the rows are, from 0 to subjects - 1, and `fingerprint_R` (rows,) of their samples.
    """
    rising_R = np.sort(fingerprint_R)  # where copies are few, much faster than sorting row numbers by it
    repeated = np.flatnonzero(are_among(rising_R[1:][rising_R[1:] == rising_R[:-1]], fingerprint_R))
    repeated = repeated[np.argsort(fingerprint_R[repeated])]
    same = np.flatnonzero(fingerprint_R[repeated[1:]] == fingerprint_R[repeated[:-1]])
    one_E, other_E = code_R[repeated[same]], code_R[repeated[same + 1]]
    subjects = int(code_R.max(initial=-1)) + 1
    links = coo_array((np.ones(one_E.size, bool), (one_E, other_E)), shape=(subjects, subjects))
    return connected_components(links, directed=False)[1]
