"""What happens to a channel that a recording lacks (`prepare.missing_channel`): derived from other leads, or masked.

A recording that is completed here reads like any other, so that nothing behind it knows where a channel came from.

    recording = complete(recording, ("i", "ii", "iii"), "derive")
    recording.channels["iii"].name      # "derived from I, II", where the recording has no III
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from jaxbio.config.roles import IN_I_AND_II, LIMB_LEADS, unit_of
from jaxbio.data.recordings.recording import Channel, Reader, Recording, RecordingError, sample_span

MASKED = "masked"  # the name in the source of a channel that has none


def roles_read(channels: Collection[str], policy: str) -> tuple[str, ...]:
    """Return the roles that are looked for in a source so that `channels` can be had under the policy."""
    derives = policy == "derive" and any(role in LIMB_LEADS for role in channels)
    return tuple(dict.fromkeys([*channels, *(LIMB_LEADS if derives else ())]))


def complete(recording: Recording, required: Collection[str], policy: str) -> Recording:
    """Return the recording with the `required` roles it lacks, as far as the policy makes them; others stay absent.

    `derive` makes any limb lead from any two others of one rate and unit. `mask` makes NaN of every role, where the
    recording has at least one. A role whose signal is there and cannot be used (`recording.faults`) is left alone: the
    file is at fault.
    """
    absent = [role for role in required if role not in recording.channels and role not in recording.faults]
    weights: dict[str, dict[str, float]] = {}
    made: dict[str, Channel] = {}
    if policy == "derive":
        for lead in absent:
            if lead in LIMB_LEADS and (weight := _weights(lead, recording.channels)):
                weights[lead] = weight
                first, second = (recording.channels[source] for source in weight)
                made[lead] = Channel(f"derived from {first.name}, {second.name}", first.unit, first.rate_hz)
    elif policy == "mask" and (held := [role for role in required if role in recording.channels]):
        weights = {role: {} for role in absent}
        made = {role: Channel(MASKED, unit_of(role), recording.channels[held[0]].rate_hz) for role in absent}
    if not made:
        return recording
    sources = {source: recording.channels[source] for weight in weights.values() for source in weight}
    reader = CompletingReader(recording.reader, weights, sources)
    return replace(recording, channels={**recording.channels, **made}, reader=reader)


def _weights(lead: str, channels: Mapping[str, Channel]) -> dict[str, float]:
    """Return the weights of the first two limb leads that `lead` follows from; none where there are no two alike."""
    for pair in combinations([role for role in LIMB_LEADS if role in channels], 2):
        first, second = (channels[role] for role in pair)
        if (first.rate_hz, first.unit) == (second.rate_hz, second.unit):
            basis = np.array([IN_I_AND_II[role] for role in pair])  # any two of the six are independent
            return dict(zip(pair, np.linalg.solve(basis.T, IN_I_AND_II[lead]).tolist(), strict=True))
    return {}


@dataclass(frozen=True)
class CompletingReader:
    """Reads what the file has through `reader`, and the roles in `weights` as weighted sums of `sources`.

    A role has two weights, or none where it is masked: NaN.
    """

    reader: Reader
    weights: Mapping[str, Mapping[str, float]]
    sources: Mapping[str, Channel]

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does; NaN in a source stays NaN."""
        wanted = {role: channel for role, channel in channels.items() if role not in self.weights}
        for role in channels:
            wanted |= {source: self.sources[source] for source in self.weights.get(role, ())}
        try:
            signals = self.reader.read(wanted, start_s, stop_s) if wanted else {}
        except RecordingError as error:
            if error.rest is not None:
                error.rest = self._complete(channels, error.rest, start_s, stop_s)
            raise
        return self._complete(channels, signals, start_s, stop_s)

    def _complete(
        self, channels: Mapping[str, Channel], signals: Mapping[str, np.ndarray], start_s: float, stop_s: float
    ) -> dict[str, np.ndarray]:
        return {
            role: self._make(role, channel, signals, start_s, stop_s) if role in self.weights else signals[role]
            for role, channel in channels.items()
        }

    def _make(
        self, role: str, channel: Channel, signals: Mapping[str, np.ndarray], start_s: float, stop_s: float
    ) -> np.ndarray:
        if not self.weights[role]:
            begin, end = sample_span(channel, start_s, stop_s)
            return np.full(end - begin, np.nan, np.float32)
        (first, a), (second, b) = self.weights[role].items()
        return np.float32(a) * signals[first] + np.float32(b) * signals[second]
