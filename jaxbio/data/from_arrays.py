"""A segment store from arrays in memory: the library's front door for people who read their own files.

store = jaxbio.store_from_arrays("store", rate_hz=125.0, ppg=ppg_recordings, ecg=ecg_recordings)
"""

import numbers
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import address_faults
from jaxbio.config.roles import ROLES, unit_of
from jaxbio.data.prepare import prepare_recordings
from jaxbio.data.recordings import Channel, Recording
from jaxbio.data.recordings.missing import complete
from jaxbio.data.recordings.recording import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from jaxbio.data.store import Store, open_store

SOURCE = "arrays"


def store_from_arrays(
    out: Path | str,
    *,
    rate_hz: float | Mapping[str, float],
    config: ConfigDict | None = None,
    names: Sequence[str] | None = None,
    subjects: Sequence[str | None] | None = None,
    start_times: Sequence[float] | None = None,
    workers: int = 1,
    **signals: Sequence[np.ndarray | None] | np.ndarray,
) -> Store:
    """Write a segment store of recordings in memory into the new folder `out`, and return it opened.

    `signals` are by role (`ppg=`, `ecg=`, `abp=`, or a lead: `ii=`, `v1=`): for each recording one array (samples,) in
    mV, mmHg or any unit (PPG), NaN or masked where missing, or None where the recording lacks the channel: then
    `prepare.missing_channel` derives, masks or refuses it. `rate_hz` is one for all or by role. `names`, `subjects`
    (patients: they decide the split; None or NaN where not known) and `start_times` (POSIX s, NaN where not known) have
    one entry a recording. `config` defaults to the default fields with these roles as its channels, in the order given.

    Raises UserError with every fault, a line for each kind: of the arrays, their rates and numbers, the folder; and
    where no segment is kept. The folder is then as it was before.
    """
    lists = {"names": names, "subjects": subjects, "start_times": start_times}
    faults = _Faults()
    _check_roles(signals, config, faults)
    counts = _count_recordings(signals, lists, faults)
    rates = _check_rates(signals, rate_hz, faults)
    for address in address_faults("out", out):
        faults.add(address.field, address.value, address.remedy)
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        faults.add("out", str(out), "holds files: name a new or empty folder")
    if not counts:
        faults.raise_all()
    _check_lists(lists, faults)
    arrays = [
        {
            role: _as_signal(role, number, of_role[number], faults)
            for role, of_role in signals.items()
            if of_role[number] is not None
        }
        for number in range(counts)
    ]
    for number, x in enumerate(arrays):
        if not x:
            faults.add(f"recording {number}", None, "give at least one signal", of="recording")
    _check_durations(arrays, rates, faults)
    faults.raise_all()
    config = config or fields.change(fields.defaults(), {"data.channels": tuple(signals)})
    channels, policy = tuple(config.data.channels), config.prepare.missing_channel
    recordings = [complete(_as_recording(number, x, rates, lists), channels, policy) for number, x in enumerate(arrays)]
    for recording in recordings:
        _check_channels(recording, channels, policy, faults)
    faults.raise_all()
    longest_s = max(recording.duration_s for recording in recordings)
    if longest_s < config.data.segment_s:
        raise UserError(Fault("signals", f"at most {longest_s:g} s", f"a segment takes {config.data.segment_s:g} s"))
    return _prepare(recordings, config, Path(out), workers)


def _prepare(recordings: Sequence[Recording], config: ConfigDict, out: Path, workers: int) -> Store:
    """Write the store and return it; where that fails, nothing of it stays."""
    was_there = out.exists()
    try:
        prepare_recordings(recordings, config, out, workers=workers, progress=False)
        return open_store(out)
    except BaseException as error:
        for entry in out.iterdir() if out.exists() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if out.exists() and not was_there:
            out.rmdir()
        if isinstance(error, UserError):  # these recordings have no --source
            named = [Fault("signals", f.value, f.remedy) if f.field == "--source" else f for f in error.faults]
            raise UserError(*named) from None
        raise


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


@dataclass
class _Faults:
    """Faults found so far; those of one kind, in many recordings, are one line."""

    found: dict[tuple[str, str], list[tuple[str, object]]] = field(default_factory=dict)

    def add(self, name: str, value: object, remedy: str, of: str = "") -> None:
        """Add a fault of the argument `name`; of several with one remedy `of` ppg the first and how many."""
        self.found.setdefault((of or name, remedy), []).append((name, value))

    def raise_all(self) -> None:
        """Raise UserError where there are any."""
        lines = []
        for (_, remedy), places in self.found.items():
            name, value = places[0]
            more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
            lines.append(Fault(name, value, remedy + more))
        if lines:
            raise UserError(*lines)


def _check_roles(signals: Mapping[str, Any], config: ConfigDict | None, faults: _Faults) -> None:
    for role in signals:
        if role not in ROLES:
            faults.add(role, "unknown role", f"one of {', '.join(ROLES)}")
    if config is not None and config.prepare.missing_channel == "refuse":
        for role in config.data.channels:
            if role not in signals:
                faults.add(role, None, "the recipe's data.channels names it: give its signals")


def _count_recordings(signals: Mapping[str, Any], lists: Mapping[str, Any], faults: _Faults) -> int:
    """Return how many recordings there are; 0 where that cannot be said."""
    counts: dict[str, int] = {}
    before = len(faults.found)
    for name, values in {**signals, **{name: values for name, values in lists.items() if values is not None}}.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or getattr(values, "shape", None) == ():
            faults.add(name, type(values).__name__, "give a list with one entry a recording")
        elif name in signals and isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iufb":
            faults.add(name, f"{values.dtype} {values.shape}", f"one recording's samples: give a list, {name}=[x]")
        else:
            counts[name] = len(values)
    if len(faults.found) == before and (not counts or 0 in counts.values()):
        faults.add("signals", counts, "give at least one recording")
    elif len(set(counts.values())) > 1:
        faults.add("signals", counts, "give each of them once for every recording")
    elif len(faults.found) == before:
        return next(iter(counts.values()))
    return 0


def _check_channels(recording: Recording, channels: Sequence[str], policy: str, faults: _Faults) -> None:
    """Find a recording that lacks channels which the policy could not make."""
    missing = [role for role in channels if role not in recording.channels]
    remedy = f"prepare.missing_channel = {policy} does not give them: give their signals, or leave the recording out"
    if missing:
        faults.add(f"recording {recording.recording}", f"no signal for {', '.join(missing)}", remedy, of="recording")


def _check_rates(signals: Mapping[str, Any], rate_hz: Any, faults: _Faults) -> dict[str, Any]:
    rates = {role: rate_hz.get(role) if isinstance(rate_hz, Mapping) else rate_hz for role in signals}
    for role, rate in rates.items():
        if not _is_rate(rate):
            remedy = f"the sampling rate is a positive number, {LOWEST_RATE_HZ:g} to {HIGHEST_RATE_HZ:g} Hz"
            faults.add("rate_hz", rate if not isinstance(rate_hz, Mapping) else f"{role}: {rate}", remedy)
    return rates


def _check_lists(lists: Mapping[str, Any], faults: _Faults) -> None:
    """Find names that are none or given twice, and start times that are no numbers."""
    names, start_times = lists["names"], lists["start_times"]
    for name, count in Counter(map(str, () if names is None else names)).items():
        if count > 1 or not name:
            faults.add("names", name, "give each recording a name of its own", of="names")
    for number, start in enumerate(() if start_times is None else start_times):
        if not _is_number(start):
            remedy = "POSIX seconds, a number (datetime.timestamp()); NaN where not known"
            faults.add(f"start_times[{number}]", start, remedy, of="start_times")


def _is_rate(value: Any) -> bool:
    return _is_number(value) and LOWEST_RATE_HZ <= value <= HIGHEST_RATE_HZ


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _as_signal(role: str, number: int, signal: Any, faults: _Faults) -> np.ndarray:
    """Return float32 (samples,) of one signal, NaN where it is masked; what is none is a fault, and empty."""
    try:
        array = np.ma.asanyarray(signal)
    except ValueError:  # rows of unlike length
        array = np.ma.zeros((0, 0))
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
        remedy = "give numbers of shape (samples,)"
        faults.add(f"{role}[{number}]", f"{array.dtype} {array.shape}", remedy, of=role)
        return np.zeros(0, np.float32)
    return np.ma.filled(array.astype(np.float32), np.nan)


def _check_durations(arrays: Sequence[Mapping[str, np.ndarray]], rates: Mapping[str, float], faults: _Faults) -> None:
    """Find recordings whose signals last unlike times, among those whose signals and rates are right."""
    for number, signals in enumerate(arrays):
        if not all(_is_rate(rates[role]) and signal.size for role, signal in signals.items()):
            continue
        durations_s = {role: signal.size / rates[role] for role, signal in signals.items()}
        if any(seconds - min(durations_s.values()) > 1 / rates[role] for role, seconds in durations_s.items()):
            remedy = "the signals of a recording last equally long, s"
            faults.add(f"recording {number}", durations_s, remedy, of="recording")


def _as_recording(
    number: int, signals: dict[str, np.ndarray], rates: Mapping[str, float], lists: Mapping[str, Any]
) -> Recording:
    names, subjects, start_times = lists["names"], lists["subjects"], lists["start_times"]
    name = f"{number:06d}" if names is None else str(names[number])
    subject = None if subjects is None else subjects[number]
    known = subject is not None and subject == subject and str(subject) != ""  # NaN differs from itself
    start_s = np.nan if start_times is None else float(start_times[number])
    return Recording(
        source=SOURCE,
        subject=str(subject) if known else name,
        subject_known=known,
        recording=name,
        duration_s=min(signal.size / rates[role] for role, signal in signals.items()),
        start_time=start_s if np.isfinite(start_s) else None,
        channels={role: Channel(role, unit_of(role), rates[role]) for role in signals},
        reader=ArraysReader(signals),
    )
