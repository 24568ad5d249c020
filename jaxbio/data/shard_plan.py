"""What a preparation will write, planned from headers alone: which windows of which recordings lie in which shard.

A shard is a neighbourhood: whole recordings, or blocks of very long ones, in time order, a subject's together. It
knows durations and channels, and reads no signal.

    plan = plan_store(list_recordings(source, names), config)
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings import Recording, Refused

KEPT = "kept"
_BYTES_A_SAMPLE = 2


@dataclass(frozen=True)
class Settings:
    """What a segment is, as plain values that travel to a worker; `length` in samples, the rest as in the fields."""

    rate_hz: float
    segment_s: float
    length: int
    channels: tuple[str, ...]
    features: tuple[str, ...]
    max_missing_frac: float
    missing_channel: str
    cross_channel: str
    author_rate_bpm: tuple[float, float]

    @property
    def segment_bytes(self) -> int:
        """Bytes of one segment's record."""
        return (len(self.channels) + len(self.features)) * self.length * _BYTES_A_SAMPLE


class Outcome(NamedTuple):
    """So many seconds of a recording met this outcome: "kept", or the reason why not."""

    source: str
    recording: str
    outcome: str
    seconds: float
    detail: str = ""


class Block(NamedTuple):
    """Windows `first` .. `first + windows` of a recording, each of a segment's duration, without overlap."""

    recording: Recording
    first: int
    windows: int


@dataclass(frozen=True)
class Plan:
    """Blocks by shard, the outcomes that headers alone decide, and a hash of all that decides the bytes.

    `first` is the number of its first shard in the store: how many shards there were before.
    """

    settings: Settings
    shards: tuple[tuple[Block, ...], ...]
    outcomes: tuple[Outcome, ...]
    config: dict[str, object]
    hash: str
    first: int = 0

    @property
    def windows(self) -> int:
        """Windows that will be read."""
        return sum(block.windows for shard in self.shards for block in shard)

    @property
    def units(self) -> dict[str, list[str]]:
        """Units that the recordings have, by role; more than one where some state theirs and others do not."""
        recordings = [block.recording for shard in self.shards for block in shard]
        return {
            role: sorted({recording.channels[role].unit for recording in recordings}) for role in self.settings.channels
        }

    def shard_name(self, shard: int) -> str:
        """File name of a shard, counted from this plan's first."""
        return f"segments-{self.first + shard:05d}-of-{self.first + len(self.shards):05d}.array_record"


def plan_store(found: Sequence[Recording | Refused], config: ConfigDict) -> Plan:
    """Return the plan for these recordings, in the order (source, subject, recording); each has every channel.

    Raises UserError where two recordings share source and name.
    """
    settings = settings_of(config)
    recordings = [entry for entry in found if isinstance(entry, Recording)]
    _check_unique(recordings)
    recordings.sort(key=lambda recording: (recording.source, recording.subject, recording.recording))
    outcomes = [
        Outcome(entry.source, entry.recording, entry.reason, entry.duration_s, entry.detail)
        for entry in found
        if isinstance(entry, Refused)
    ]
    blocks: list[Block] = []
    longest = _longest_block(settings, config)
    for recording in recordings:
        windows, rest = plan_recording(recording, settings)
        if rest.seconds:
            outcomes.append(rest)
        blocks += [Block(recording, first, min(longest, windows - first)) for first in range(0, windows, longest)]
    shards = tuple(_fill_shards(blocks, max(1, config.prepare.shard_bytes // settings.segment_bytes)))
    prepared = preparation_config(config)
    return Plan(settings, shards, tuple(outcomes), prepared, _hash_plan(shards, outcomes, prepared))


def settings_of(config: ConfigDict) -> Settings:
    """Return what a segment is under `config`."""
    data = config.data
    return Settings(
        rate_hz=data.rate_hz,
        segment_s=data.segment_s,
        length=round(data.rate_hz * data.segment_s),
        channels=tuple(data.channels),
        features=tuple(data.features),
        max_missing_frac=config.prepare.max_missing_frac,
        missing_channel=config.prepare.missing_channel,
        cross_channel=config.quality.cross_channel,
        author_rate_bpm=tuple(config.quality.author_rate_bpm),
    )


def preparation_config(config: ConfigDict) -> dict[str, object]:
    """Return the fields that decide what a store holds, by dotted name."""
    decisive: tuple[str, ...] = ("data.rate_hz", "data.segment_s", "data.channels", "prepare.")
    decisive += ("quality.author_", "quality.cross_")
    if config.data.features:  # a store without any keeps its hash
        decisive += ("data.features",)
    return {name: value for name, value in fields.flatten(config).items() if name.startswith(decisive)}


def _check_unique(recordings: Iterable[Recording]) -> None:
    counts = Counter((recording.source, recording.recording) for recording in recordings)
    remedy = "two recordings of this name in sources of one name: name the second with ?name=NAME"
    faults = [Fault("--source", f"{source}: {name}", remedy) for (source, name), count in counts.items() if count > 1]
    if faults:
        raise UserError(*faults[:5])


def plan_recording(recording: Recording, settings: Settings) -> tuple[int, Outcome]:
    """Return how many whole windows there are, and the rest that is shorter than one."""
    # A millionth of a window forgives durations that were divided out of sample counts.
    windows = math.floor(recording.duration_s / settings.segment_s + 1e-6)
    rest_s = recording.duration_s - windows * settings.segment_s
    return windows, Outcome(recording.source, recording.recording, "remainder", rest_s)


def _longest_block(settings: Settings, config: ConfigDict) -> int:
    by_time = config.prepare.block_h * 3600 / settings.segment_s
    by_size = config.prepare.shard_bytes / settings.segment_bytes
    return max(1, int(min(by_time, by_size)))


def _fill_shards(blocks: Iterable[Block], capacity: int) -> Iterable[tuple[Block, ...]]:
    """Yield blocks in order, as many to a shard as keep it within `capacity` windows."""
    shard: list[Block] = []
    filled = 0
    for block in blocks:
        if shard and filled + block.windows > capacity:
            yield tuple(shard)
            shard, filled = [], 0
        shard.append(block)
        filled += block.windows
    if shard:
        yield tuple(shard)


def _hash_plan(shards: Sequence[Sequence[Block]], outcomes: Sequence[Outcome], prepared: dict[str, object]) -> str:
    # Without details: they name files by their path, and a store does not depend on where its source lies.
    digest = hashlib.sha256(json.dumps([prepared, [outcome[:4] for outcome in outcomes]]).encode())
    for number, shard in enumerate(shards):
        for recording, first, windows in shard:
            channels = {role: vars(channel) for role, channel in sorted(recording.channels.items())}
            identity = [recording.source, recording.subject, recording.subject_known, recording.recording]
            identity += [recording.reading] if recording.reading else []
            digest.update(json.dumps([number, *identity, recording.start_time, channels, first, windows]).encode())
    return digest.hexdigest()[:32]
