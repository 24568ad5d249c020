"""A segment store from arrays in memory: the library's front door for people who read their own files.

store = jaxbio.store_from_arrays("store", rate_hz=125.0, ppg=ppg_recordings, ecg=ecg_recordings)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import ROLES, unit_of
from jaxbio.data.prepare import prepare_recordings
from jaxbio.data.recordings import Channel, Recording
from jaxbio.data.recordings.missing import complete
from jaxbio.data.store import Store, open_store

SOURCE = "arrays"


def store_from_arrays(
    out: Path | str,
    *,
    rate_hz: float | Mapping[str, float],
    config: ConfigDict | None = None,
    names: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    start_times: Sequence[float] | None = None,
    workers: int = 1,
    **signals: Sequence[np.ndarray | None] | np.ndarray,
) -> Store:
    """Write a segment store of recordings in memory into the new folder `out`, and return it opened.

    `signals` are by role (`ppg=`, `ecg=`, `abp=`, or a lead: `ii=`, `v1=`): for each recording one array (samples,) in
    mV, mmHg or any unit (PPG), NaN where missing, or None where the recording lacks the channel: then
    `prepare.missing_channel` derives, masks or refuses it. `rate_hz` is one for all or by role. `names`, `subjects`
    (patients: they decide the split) and `start_times` (POSIX s) have one entry a recording. `config` defaults to the
    default fields with these roles as its channels, in the order given.

    Raises UserError with every fault: of the arrays, their rates and numbers, the folder.
    """
    if config is None:
        config = fields.change(fields.defaults(), {"data.channels": tuple(signals)})
    faults = _count_faults(signals, config, {"names": names, "subjects": subjects, "start_times": start_times})
    rates = {role: rate_hz[role] if isinstance(rate_hz, Mapping) else rate_hz for role in signals}
    faults += [
        Fault("rate_hz", rate, f"the sampling rate of {role} is a positive number, Hz")
        for role, rate in rates.items()
        if not (np.isfinite(rate) and rate > 0)
    ]
    if Path(out).exists() and any(Path(out).iterdir()):
        faults.append(Fault("out", str(out), "holds files: name a new or empty folder"))
    if faults:
        raise UserError(*faults)
    arrays = [
        {
            role: _as_signal(role, number, of_role[number], faults)
            for role, of_role in signals.items()
            if of_role[number] is not None
        }
        for number in range(len(next(iter(signals.values()))))
    ]
    faults += [
        Fault(f"recording {number}", None, "give at least one signal") for number, x in enumerate(arrays) if not x
    ]
    recordings = [
        _as_recording(number, x, rates, names, subjects, start_times, faults) for number, x in enumerate(arrays) if x
    ]
    channels, policy = tuple(config.data.channels), config.prepare.missing_channel
    recordings = [complete(recording, channels, policy) for recording in recordings]
    for recording in recordings:
        faults += _missing_faults(f"recording {recording.recording}", recording.channels, channels, policy)
    if faults:
        raise UserError(*faults)
    prepare_recordings(recordings, config, out, workers=workers, progress=False)
    return open_store(out)


@dataclass(frozen=True)
class ArraysReader:
    """Signals of one recording, by role."""

    signals: dict[str, np.ndarray]

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        return {
            role: self.signals[role][round(start_s * channel.rate_hz) : round(stop_s * channel.rate_hz)]
            for role, channel in channels.items()
        }


def _count_faults(
    signals: Mapping[str, Any], config: ConfigDict, lists: Mapping[str, Sequence[Any] | None]
) -> list[Fault]:
    faults = [Fault(role, "unknown role", f"one of {', '.join(ROLES)}") for role in signals if role not in ROLES]
    if config.prepare.missing_channel == "refuse":
        missing = [role for role in config.data.channels if role not in signals]
        faults += [Fault(role, None, "the recipe's data.channels names it: give its signals") for role in missing]
    counts = {role: len(arrays) for role, arrays in signals.items()}
    if not counts or 0 in counts.values():
        return [*faults, Fault("signals", counts, "give at least one recording")]
    for name, values in lists.items():
        if values is not None:
            counts[name] = len(values)
    if len(set(counts.values())) > 1:
        faults.append(Fault("signals", counts, "give each of them once for every recording"))
    return faults


def _missing_faults(name: str, held: Collection[str], channels: Sequence[str], policy: str) -> list[Fault]:
    """Return the fault of a recording that lacks channels which the policy could not make."""
    missing = [role for role in channels if role not in held]
    remedy = f"prepare.missing_channel = {policy} does not give them: give their signals, or leave the recording out"
    return [Fault(name, f"no signal for {', '.join(missing)}", remedy)] if missing else []


def _as_signal(role: str, number: int, signal: Any, faults: list[Fault]) -> np.ndarray:
    """Return float32 (samples,) of one signal; what is none is a fault."""
    array = np.asarray(signal)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
        faults.append(Fault(f"{role}[{number}]", f"{array.dtype} {array.shape}", "give numbers of shape (samples,)"))
        return np.zeros(1, np.float32)
    return array.astype(np.float32)


def _as_recording(
    number: int,
    signals: dict[str, np.ndarray],
    rates: Mapping[str, float],
    names: Sequence[str] | None,
    subjects: Sequence[str] | None,
    start_times: Sequence[float] | None,
    faults: list[Fault],
) -> Recording:
    durations_s = {role: signal.size / rates[role] for role, signal in signals.items()}
    shortest_s = min(durations_s.values())
    if any(seconds - shortest_s > 1 / rates[role] for role, seconds in durations_s.items()):
        faults.append(Fault(f"recording {number}", durations_s, "the signals of a recording last equally long, s"))
    name = f"{number:06d}" if names is None else str(names[number])
    return Recording(
        source=SOURCE,
        subject=name if subjects is None else str(subjects[number]),
        subject_known=subjects is not None,
        recording=name,
        duration_s=shortest_s,
        start_time=None if start_times is None else float(start_times[number]),
        channels={role: Channel(role, unit_of(role), rates[role]) for role in signals},
        reader=ArraysReader(signals),
    )
