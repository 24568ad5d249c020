"""What is wrong between fields of a configuration that are right alone."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from jaxbio.config import families
from jaxbio.config.faults import Fault
from jaxbio.config.features import FEATURES, LEAD
from jaxbio.config.roles import ROLES
from jaxbio.config.single_fields import is_number, rule_faults

_TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
_EVERY_STEPS = ("checkpoint.every_steps", "checkpoint.keep_every_steps", "eval.every_steps", "log.every_steps")


def faults_between(values: dict[str, Any]) -> Iterator[Fault]:
    """Yield the faults of `values`, dotted name -> value, that are right alone and wrong together."""
    yield from _data_faults(values)
    yield from input_faults(values)
    yield from _train_faults(values)
    yield from _mesh_faults(values)
    yield from _tracker_faults(values["log.trackers"])
    yield from _optimizer_faults(values)
    yield from families.MODELS[values["model.name"]].faults(values)
    yield from families.OBJECTIVES[values["objective.name"]].faults(values)


def _data_faults(values: dict[str, Any]) -> Iterator[Fault]:
    samples = values["data.rate_hz"] * values["data.segment_s"]
    if abs(samples - round(samples)) > 1e-6:
        yield Fault("data.segment_s", values["data.segment_s"], "make rate_hz x segment_s a whole number of samples")
    channels = values["data.channels"]
    if len(set(channels)) != len(channels) or not channels:
        yield Fault("data.channels", channels, "name each channel role once, at least one")
    for role in channels:
        if role not in ROLES:
            yield Fault("data.channels", channels, f"{role!r} is no role; roles: {', '.join(ROLES)}")
    target = values["data.target"]
    if target is not None and (len(channels) < 2 or channels[-1] != target):
        yield Fault("data.target", target, f"the last of data.channels = {channels}, behind those that are seen")
    if target is not None and not families.OBJECTIVES[values["objective.name"]].labelled:
        yield Fault("data.target", target, "None: this objective learns from no label and no channel")
    yield from _share_faults(values)
    yield from _feature_faults(values)
    split = values["prepare.split"]
    if len(split) != 3 or min(split) < 0 or abs(sum(split) - 1) > 1e-6:
        yield Fault("prepare.split", split, "three shares (train, validation, test) that sum to 1")
    edges = values["pairs.class_edges"]
    if len(edges) != 4 or list(edges) != sorted(set(edges)) or not (edges[0] > 0 and edges[-1] < 1):
        yield Fault("pairs.class_edges", edges, "four rising numbers between 0 and 1")
    for name in ("augment.scale_range", "augment.block_frac", "quality.author_rate_bpm"):
        if len(values[name]) != 2 or not 0 < values[name][0] <= values[name][1]:
            yield Fault(name, values[name], "two positive numbers, the smaller first")
    labels = values["data.labels"]
    if len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        yield Fault("data.labels", labels, "name each label once, as texts")
    if values["data.curriculum"]:
        yield from _curriculum_faults(values["data.curriculum"])
    if values["data.batching"] == "neighbourhoods":
        yield from _neighbourhood_faults(values)
    yield from _store_faults(values["data.store"])


def _share_faults(values: dict[str, Any]) -> Iterator[Fault]:
    share = values["data.label_share"]
    if not 0 < share <= 1:
        yield Fault("data.label_share", share, "above 0 and at most 1")
    elif share < 1 and not families.OBJECTIVES[values["objective.name"]].labelled:
        yield Fault("data.label_share", share, "1: this objective learns from no label and no channel")


def _feature_faults(values: dict[str, Any]) -> Iterator[Fault]:
    features, scales = values["data.features"], values["data.feature_scales"]
    yield from scale_faults(values)
    if features and LEAD not in values["data.channels"]:
        yield Fault("data.features", features, f"they are made of lead {LEAD}: name it in data.channels")
    shaken = [name for name in values if name.startswith("augment.") and name.endswith("_prob") and values[name]]
    for name in shaken if features else ():
        yield Fault(name, values[name], "0 with data.features: what disturbs a signal makes no sense of a heart rate")
    if scales and not features:
        yield Fault("data.feature_scales", scales, "() where there are no data.features")


def scale_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `data.features` and `data.feature_scales` themselves."""
    features, scales = values["data.features"], values["data.feature_scales"]
    if len(set(map(str, features))) != len(features) or not all(name in FEATURES for name in map(str, features)):
        yield Fault("data.features", features, f"each once, of {', '.join(FEATURES)}")
    pairs = [scale for scale in scales if isinstance(scale, (tuple, list)) and len(scale) == 2]
    numbers = [number for pair in pairs for number in pair]
    right = len(pairs) == len(scales) in (0, len(features)) and all(
        type(number) in (int, float) and math.isfinite(number) for number in numbers
    )
    if not right or not all(pair[1] > 0 for pair in pairs):
        yield Fault(
            "data.feature_scales", scales, "(centre, spread) of each feature, spread above 0; or () to fit them"
        )


def _store_faults(store: Any) -> Iterator[Fault]:
    name = "data.store"
    if isinstance(store, str) and store.startswith("synthetic:") and not store.removeprefix("synthetic:").isdecimal():
        yield Fault(name, store, "synthetic:<number of segments>, for example synthetic:400")
    if not isinstance(store, (tuple, list)):
        return
    shaped = [isinstance(entry, (tuple, list)) and len(entry) == 2 for entry in store]
    if not store or not all(shaped):
        yield Fault(name, store, "several stores are pairs (folder, weight), for example (('A', 0.7), ('B', 0.3))")
        return
    folders, weights = [folder for folder, _ in store], [weight for _, weight in store]
    for folder in folders:
        if not isinstance(folder, str) or not folder or folder.startswith("synthetic:"):
            yield Fault(name, folder, "name the folder of a store that is there; a synthetic one stands alone")
    for folder in sorted({str(folder) for folder in folders if folders.count(folder) > 1}):
        yield Fault(name, folder, "name each store once, with the sum of its weights")
    wrong = [weight for weight in weights if not is_number(weight) or not 0 < weight <= 1]
    for weight in wrong:
        yield Fault(name, weight, "a weight is a share of what is drawn, above 0 and at most 1")
    if not wrong and abs(sum(weights) - 1) > 1e-6:
        scaled = ", ".join(f"{weight / sum(weights):.4g}" for weight in weights)
        yield Fault(name, weights, f"the weights sum to {sum(weights):.6g}, not 1: in the same proportion {scaled}")


def input_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong between the fields `data.*` that describe an encoder's input (`transforms/prepare_input`)."""
    rate_hz, segment_s, crop_s = values["data.rate_hz"], values["data.segment_s"], values["data.crop_s"]
    if crop_s is None and values["data.crops"] != 1:
        yield Fault("data.crops", values["data.crops"], "1, or set data.crop_s: a whole segment is one crop")
    if crop_s is not None and crop_s > segment_s:
        yield Fault("data.crop_s", crop_s, f"at most data.segment_s = {segment_s:g}")
    elif crop_s is not None and abs(crop_s * rate_hz - round(crop_s * rate_hz)) > 1e-6:
        near = f"{math.floor(crop_s * rate_hz) / rate_hz:g} or {math.ceil(crop_s * rate_hz) / rate_hz:g}"
        yield Fault("data.crop_s", crop_s, f"make rate_hz x crop_s a whole number of samples: {near}")
    band_hz = values["data.band_hz"]
    if band_hz is None:
        return
    if len(band_hz) != 2 or not all(type(edge_hz) in (int, float) for edge_hz in band_hz):
        yield Fault("data.band_hz", band_hz, "two numbers, the edges of the band in Hz")
    elif not 0 < band_hz[0] < band_hz[1]:
        yield Fault("data.band_hz", band_hz, "two edges above 0 Hz, the lower one first")
    elif band_hz[1] >= rate_hz / 2:
        remedy = f"below {rate_hz / 2:g} Hz, half of data.rate_hz: a segment holds nothing above it"
        yield Fault("data.band_hz", band_hz, remedy)


def _curriculum_faults(stages: Any) -> Iterator[Fault]:
    name = "data.curriculum"
    if not all(isinstance(stage, (tuple, list)) and len(stage) == 2 for stage in stages):
        yield Fault(name, stages, "each stage is a pair: (end as a share of the steps, largest difficulty)")
        return
    ends, difficulties = [stage[0] for stage in stages], [stage[1] for stage in stages]
    if ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        yield Fault(name, stages, "the stages' ends rise and the last is 1")
    if difficulties != sorted(difficulties):
        yield Fault(name, stages, "a stage draws at least what the one before it drew: difficulties rise")


def _neighbourhood_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    name, rooms, batch = "data.batching", values["data.neighbourhood"], values["train.batch"]
    if _rooms_fault(rooms):
        yield Fault("data.neighbourhood", rooms, "two whole numbers above 0: better segments, worse segments")
    elif batch % rooms[1]:
        near = (f"{below} or " if (below := batch // rooms[1] * rooms[1]) else "") + str(below + rooms[1])
        yield Fault("train.batch", batch, f"a multiple of the {rooms[1]} worse segments of a neighbourhood: {near}")
    if values["pairs.rule"] == "all_segments":
        yield Fault(name, "neighbourhoods", "pairs: an index of single segments (pairs.rule) has no neighbourhoods")
    if not families.OBJECTIVES[values["objective.name"]].neighbourhoods:
        able = ", ".join(name for name, training in families.OBJECTIVES.items() if training.neighbourhoods)
        remedy = f"pairs: {values['objective.name']} takes every row of a batch as a pair; {able} does not"
        yield Fault(name, "neighbourhoods", remedy)
    if values["data.curriculum"]:
        yield Fault("data.curriculum", values["data.curriculum"], "(): a neighbourhood holds pairs of all difficulties")
    if values["train.microbatches"] != 1:
        yield Fault("train.microbatches", values["train.microbatches"], "1: neighbourhoods are not split")


def _tracker_faults(trackers: Any) -> Iterator[Fault]:
    for name in trackers:
        if name not in _TRACKERS:
            yield Fault("log.trackers", name, f"of {', '.join(_TRACKERS)}")
    if len(set(map(str, trackers))) < len(trackers):
        yield Fault("log.trackers", trackers, "name each once")


def _rooms_fault(rooms: Any) -> bool:
    return len(rooms) != 2 or not all(type(room) is int and room > 0 for room in rooms)


def _train_faults(values: dict[str, Any]) -> Iterator[Fault]:
    batch, parts = values["train.batch"], values["train.microbatches"]
    if batch % parts:
        yield Fault("train.microbatches", parts, f"make it a divisor of train.batch = {batch}")
    dispatch = values["train.steps_per_dispatch"]
    for name in ("train.steps", *_EVERY_STEPS):
        if values[name] is not None and values[name] % dispatch:
            yield Fault(name, values[name], f"make it a multiple of train.steps_per_dispatch = {dispatch}")
    yield from _init_faults(values["train.init_from"])
    every, keep_every = values["checkpoint.every_steps"], values["checkpoint.keep_every_steps"]
    if keep_every is not None and keep_every % every:
        yield Fault(
            "checkpoint.keep_every_steps", keep_every, f"make it a multiple of checkpoint.every_steps = {every}"
        )


def _init_faults(named: Any) -> Iterator[Fault]:
    if not isinstance(named, (tuple, list)):
        return
    shaped = [isinstance(part, (tuple, list)) and len(part) == 2 and all(map(_is_text, part)) for part in named]
    if not named or not all(shaped):
        yield Fault("train.init_from", named, "pairs (encoder, folder), for example (('student', 'EXPORT'),)")
    elif len({name for name, _ in named}) < len(named):
        yield Fault("train.init_from", named, "name each encoder once")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _mesh_faults(values: dict[str, Any]) -> Iterator[Fault]:
    sizes = {axis: values[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor")}
    if list(sizes.values()).count(-1) > 1:
        yield Fault("mesh", sizes, "only one axis can be -1 (the rest of the devices)")
    for axis, size in sizes.items():
        if size == 0:
            yield Fault(f"mesh.{axis}", 0, "1 where the axis is not used, -1 for the rest of the devices")
    ways = max(sizes["data"], 1) * max(sizes["fsdp"], 1)
    part = values["train.batch"] // values["train.microbatches"]
    parts = f"a microbatch of {part} does"
    if values["data.batching"] == "neighbourhoods" and not _rooms_fault(values["data.neighbourhood"]):
        part //= values["data.neighbourhood"][1]
        parts = f"its {part} neighbourhoods do"
    if part % ways:
        yield Fault("train.batch", values["train.batch"], f"{parts} not divide over data x fsdp = {ways}")
    yield from rule_faults("mesh.rules", values["mesh.rules"])


def _optimizer_faults(values: dict[str, Any]) -> Iterator[Fault]:
    section = {name: value for name, value in values.items() if name.startswith("optimizer.")}
    yield from _schedule_faults("optimizer", section)
    for place, (_, changes) in enumerate(values["optimizer.groups"]):
        if "frozen" not in changes:
            changed = {f"optimizer.{key}": value for key, value in changes.items()}
            yield from _schedule_faults(f"optimizer.groups[{place}]", {**section, **changed})


def _schedule_faults(where: str, section: Mapping[str, Any]) -> Iterator[Fault]:
    start, end = section["optimizer.learning_rate"], section["optimizer.learning_rate_end"]
    if end > start:
        yield Fault(f"{where}.learning_rate_end", end, f"at most {where}.learning_rate = {start}")
