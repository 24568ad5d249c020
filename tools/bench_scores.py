"""Measure beats and quality scores on real recordings with known beats, rates, rhythms and labels.

python tools/bench_scores.py --data DIR
python tools/bench_scores.py --data DIR --only beats,cinc2017

DIR holds the folders wfdb_samples, cpsc2021_af, bidmc, cinc2017, cinc2015_vt, ratings and ppg_rhythm. The tables go to
standard error, every record listed; the figures to one JSON line, `interval_*` with their bootstrap interval over
records (value, 2.5 %, 97.5 %). docs/data.md says what they mean.
"""

import argparse
import csv
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

import numpy as np

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.fields import COMMON
from jaxbio.data.recordings import Recording, list_recordings, parse_source
from jaxbio.signals import artefacts, beats, filters, noise, synthetic
from tools import rated_scores
from tools.rated_scores import SEGMENT_S, auroc, interval, measure

LENGTH = 9000
CLASS_EDGES = (0.3, 0.5, 0.7, 0.9)
CLASSES = ("Bad", "Poor", "Acceptable", "Good", "Excellent")
TOLERANCE_S = 0.15
SNRS_DB = (20.0, 10.0, 5.0, 0.0, -5.0)
DROPOUTS = (0.05, 0.10, 0.20, 0.40, 0.60)


def main(arguments: Sequence[str]) -> dict:
    """Run the chosen measurements and return their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of the recordings' folders")
    parser.add_argument("--only", default=",".join(BENCHES), metavar="NAMES", help=f"of {','.join(BENCHES)}")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    chosen = flags.only.split(",")
    unknown = [Fault("--only", name, f"choose of {', '.join(BENCHES)}") for name in chosen if name not in BENCHES]
    if not flags.data.is_dir():
        unknown.append(Fault("--data", str(flags.data), "name the folder that holds bidmc, cinc2017 and the others"))
    if unknown:
        raise UserError(*unknown)
    return {name: plain(BENCHES[name](flags.data)) for name in chosen}


def plain(figures: Any) -> Any:
    """Return figures with NumPy scalars as Python numbers of six digits."""
    if isinstance(figures, dict):
        return {name: plain(value) for name, value in figures.items()}
    if isinstance(figures, tuple):
        return [plain(value) for value in figures]
    return round(float(figures), 6) if isinstance(figures, (float, np.floating)) else figures


# ---- reading


def load_windows(recording: Recording, roles: Sequence[str], *, shorter: bool = False) -> dict[str, np.ndarray]:
    """Return whole 30-s windows (B, N) by role; with `shorter`, a recording below 30 s as one window."""
    count = int(recording.duration_s / SEGMENT_S + 1e-9)
    span_s = SEGMENT_S
    if shorter and not count:
        count, span_s = 1, recording.duration_s
    parts = [recording.read(k * span_s, (k + 1) * span_s, roles) for k in range(count)]
    return {role: np.stack([part[role] for part in parts]) for role in roles} if parts else {}


def load_recordings(folder: Path, roles: Sequence[str], pattern: str = "wfdb:{}") -> list[Recording]:
    """Return the recordings of a folder that have all roles, by the default channel names."""
    prefix = "prepare.channel_names."
    names = {key.removeprefix(prefix): field.default for key, field in COMMON.items() if key.startswith(prefix)}
    entries = list_recordings(parse_source(pattern.format(folder)), names, required=roles)
    return [entry for entry in entries if isinstance(entry, Recording)]


def stack(columns: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns of several recordings as one table."""
    return {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}


def labels_of(path: Path) -> dict[str, str]:
    """Return {record: last column} of a headerless CSV."""
    with path.open(newline="") as file:
        return {row[0]: row[-1].strip() for row in csv.reader(file) if row}


# ---- beats and rates


def match_beats(found_s: np.ndarray, true_s: np.ndarray) -> int:
    """Return how many true beats have a found one of their own within 150 ms (both in order)."""
    hits = at = 0
    for beat_s in true_s:
        while at < len(found_s) and found_s[at] < beat_s - TOLERANCE_S:
            at += 1
        if at < len(found_s) and found_s[at] <= beat_s + TOLERANCE_S:
            hits, at = hits + 1, at + 1
    return hits


def score_beats(recording: Recording, annotation: str) -> tuple[float, float, int]:
    """Return sensitivity, positive predictivity and true beats of a recording's ECG in 30-s windows."""
    import wfdb

    marks = wfdb.rdann(annotation, "atr")
    is_beat = np.isin(marks.symbol, list("NLRBAaJSVrFejnE/fQ?"))
    true_s = marks.sample[is_beat] / marks.fs
    x_BN = load_windows(recording, ["ecg"])["ecg"]
    found = find_r_peaks(x_BN)
    hits = true_count = 0
    for row in range(len(x_BN)):
        start_s = row * SEGMENT_S
        inside_s = true_s[(true_s >= start_s) & (true_s < start_s + SEGMENT_S)] - start_s
        hits += match_beats(found.time_J[found.row_J == row], inside_s)
        true_count += len(inside_s)
    return hits / true_count, hits / max(1, len(found.time_J)), true_count


def find_r_peaks(x_BN: np.ndarray) -> beats.Beats:
    """Return the R peaks of raw 30-s windows, as `segments.measure` finds them."""
    gaps = artefacts.find_gaps(x_BN, x_BN.shape[1] / SEGMENT_S)
    unit_BN = (gaps.filled_BN - gaps.offset_B[:, None]) / gaps.scale_B[:, None]
    return beats.find_r_peaks(filters.resample(unit_BN, round(SEGMENT_S * beats.DETECTION_HZ)))


def bench_beats(data: Path) -> dict:
    """R peaks against the annotations of MITDB 100 and CPSC 2021."""
    mitdb = next(r for r in load_recordings(data / "wfdb_samples", ["ecg"]) if r.recording == "100")
    sensitivity, predictivity, count = score_beats(mitdb, str(data / "wfdb_samples" / "100"))
    show(f"mitdb 100: sensitivity {sensitivity:.4f} positive predictivity {predictivity:.4f} beats {count}")
    figures = {"mitdb_sensitivity": sensitivity, "mitdb_predictivity": predictivity}
    rows = []
    for recording in load_recordings(data / "cpsc2021_af", ["ecg"]):
        rows.append(score_beats(recording, str(data / "cpsc2021_af" / recording.recording)))
        name, lead = recording.recording, recording.channels["ecg"].name
        show(f"{name:12} {lead:3} sensitivity {rows[-1][0]:.4f} predictivity {rows[-1][1]:.4f} beats {rows[-1][2]}")
    median = np.median(np.array(rows), axis=0)
    show(f"median over {len(rows)}: {median[0]:.4f} {median[1]:.4f}")
    return figures | {"cpsc_sensitivity": median[0], "cpsc_predictivity": median[1], "cpsc_records": len(rows)}


def load_bidmc(data: Path) -> list[tuple[Recording, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Return BIDMC recordings with their raw windows and the monitor's HR and PULSE, median of each 30 s."""
    loaded = []
    source = "csv:{}?rate_hz=125&glob=*_Signals.csv.gz"
    for recording in load_recordings(data / "bidmc", ["ppg", "ecg"], source):
        raw = load_windows(recording, ["ppg", "ecg"])
        number = re.sub(r"_Signals.*", "", Path(recording.recording).name)
        with (data / "bidmc" / f"{number}_Numerics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        monitor = {}
        for name in ("HR", "PULSE"):
            value_S = np.array([float(row.get(name) or "nan") for row in rows])[: 30 * len(raw["ecg"])]
            monitor[name] = np.nanmedian(value_S.reshape(-1, 30), axis=1)
        loaded.append((recording, raw, monitor))
    return loaded


def bench_bidmc(data: Path) -> dict:
    """Heart rate of BIDMC against the monitor, and how good its segments are."""
    tables = []
    for recording, raw, monitor in load_bidmc(data):
        columns = measure(raw) | monitor
        off = np.abs(columns["heart_rate_bpm"] - columns["HR"]) > 2
        pulse_off = np.abs(columns["pulse_rate_bpm"] - columns["PULSE"]) > 2
        quality = np.median(columns["quality_waveform"])
        show(f"{recording.recording:24} quality {quality:.3f} HR off {off.mean():.2f} PULSE off {pulse_off.mean():.2f}")
        tables.append(columns)
    table = {name: column[stack(tables)["kept"]] for name, column in stack(tables).items()}
    good = table["quality_waveform"] >= 0.7

    def within(found: str, known: str) -> float:
        return float(np.mean(np.abs(table[found] - table[known])[good] <= 2))

    figures = {
        "segments": len(good),
        "good_frac": float(good.mean()),
        "heart_rate_within_2bpm": within("heart_rate_bpm", "HR"),
        "pulse_rate_within_2bpm": within("pulse_rate_bpm", "PULSE"),
        "classes_waveform": class_shares(table["quality_waveform"]),
        "classes_author": class_shares(table["quality_author"]),
    }
    show_figures("bidmc", figures)
    return figures


# ---- noise, not rhythm


def bench_cinc2017(data: Path) -> dict:
    """Does the ECG score know the records that people called noisy, and is it blind to fibrillation?"""
    labels = labels_of(data / "cinc2017" / "REFERENCE.csv")
    scores: dict[str, list[tuple[float, float]]] = {}
    for recording in load_recordings(data / "cinc2017", ["ecg"]):
        raw = load_windows(recording, ["ecg"], shorter=True)
        columns = measure(raw, min(SEGMENT_S, recording.duration_s))
        score = (float(columns["ecg_waveform"].mean()), float(columns["ecg_author"].mean()))
        label = labels[recording.recording]
        scores.setdefault(label, []).append(score)
        show(f"{recording.recording:10} {label} waveform {score[0]:.3f} author {score[1]:.3f}")
    table = {label: np.array(values).T for label, values in scores.items()}
    figures = {}
    for number, variant in enumerate(("waveform", "author")):
        clean = np.concatenate([table[label][number] for label in table if label != "~"])
        figures[f"auroc_noisy_{variant}"] = auroc(clean, table["~"][number])
        figures[f"auroc_af_{variant}"] = auroc(table["A"][number], table["N"][number])
    record_R = np.arange(sum(values.shape[1] for values in table.values()))
    label_R = np.concatenate([[label] * values.shape[1] for label, values in table.items()])
    score_R = np.concatenate([values[0] for values in table.values()])
    for name, of, against in (("noisy", "NAO", "~"), ("af", "A", "N")):
        figures[f"interval_auroc_{name}_waveform"] = interval(
            lambda label, score, of=of, against=against: auroc(
                score[np.isin(label, list(of))], score[np.isin(label, list(against))]
            ),
            record_R,
            label_R,
            score_R,
        )
    show_figures("cinc2017", figures)
    return figures


def bench_cpsc2021(data: Path) -> dict:
    """ECG scores of records with and without fibrillation."""
    scores: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for recording in load_recordings(data / "cpsc2021_af", ["ecg"]):
        header = (data / "cpsc2021_af" / f"{recording.recording}.hea").read_text()
        is_af = "non atrial" not in header
        columns = measure(load_windows(recording, ["ecg"]))
        pair = np.stack([columns["ecg_waveform"], columns["ecg_author"]])
        scores[is_af].append(pair)
        median = np.median(pair, axis=1)
        show(f"{recording.recording:12} {'AF' if is_af else 'no AF':6} waveform {median[0]:.3f} author {median[1]:.3f}")
    figures = {}
    for is_af, name in ((True, "af"), (False, "non_af")):
        median = np.median(np.concatenate(scores[is_af], axis=1), axis=1)
        figures |= {f"median_{name}_waveform": median[0], f"median_{name}_author": median[1]}
        record_R = np.repeat(np.arange(len(scores[is_af])), [pair.shape[1] for pair in scores[is_af]])
        figures[f"interval_median_{name}_waveform"] = interval(
            np.median, record_R, np.concatenate([pair[0] for pair in scores[is_af]])
        )
    show_figures("cpsc2021_af", figures)
    return figures


def bench_cinc2015(data: Path) -> dict:
    """Scores before true and false ventricular-tachycardia alarms, and the classes of all accepted segments."""
    labels = labels_of(data / "cinc2015_vt" / "ALARMS")
    last: dict[tuple[str, str], list[tuple[float, float]]] = {}
    tables = []
    for recording in load_recordings(data / "cinc2015_vt", ["ecg"]):
        roles = [role for role in ("ppg", "ecg") if role in recording.channels]
        columns = measure(load_windows(recording, roles))
        kind = "true" if labels[recording.recording] == "1" else "false"
        last.setdefault(("ecg", kind), []).append((columns["ecg_waveform"][-1], columns["ecg_author"][-1]))
        show(f"{recording.recording:8} {kind:5} last 30 s: waveform {columns['ecg_waveform'][-1]:.3f}")
        if "ppg" in roles:
            pair = (columns["quality_waveform"][-1], columns["quality_author"][-1])
            last.setdefault(("both", kind), []).append(pair)
            tables.append(columns | {"record": np.full(len(columns["kept"]), recording.recording)})
    table = stack(tables)
    kept = {name: column[table["kept"]] for name, column in table.items()}
    figures: dict = {"segments": len(kept["kept"])}
    for (channels, kind), values in sorted(last.items()):
        median = np.median(np.array(values), axis=0)
        figures |= {f"last_{channels}_{kind}_waveform": median[0], f"last_{channels}_{kind}_author": median[1]}
        last_R = np.array(values)[:, 0]
        figures[f"interval_last_{channels}_{kind}_waveform"] = interval(np.median, np.arange(len(last_R)), last_R)
    figures |= {f"classes_{v}": class_shares(kept[f"quality_{v}"]) for v in ("waveform", "author")}
    for number, name in enumerate(CLASSES):
        figures[f"interval_class_{name}_waveform"] = interval(
            lambda score, number=number: 100 * np.mean(np.digitize(score, CLASS_EDGES) == number),
            kept["record"],
            kept["quality_waveform"],
        )
    show_figures("cinc2015_vt", figures)
    return figures


def class_shares(quality_R: np.ndarray) -> dict[str, float]:
    """Return the share of each class, per cent."""
    count = np.bincount(np.digitize(quality_R, CLASS_EDGES), minlength=len(CLASSES))
    return {name: round(100 * float(n) / len(quality_R), 1) for name, n in zip(CLASSES, count)}


# ---- eyes, rhythms, rates


def bench_ratings(data: Path) -> dict:
    """PPG and ECG scores against what two people called usable."""
    recordings = {r.recording: r for r in load_recordings(data / "cinc2015_vt", ["ppg", "ecg"])}
    figures = rated_scores.bench_ratings(data, lambda name: load_windows(recordings[name], ["ppg", "ecg"]))
    show_intervals("ratings", figures)
    return figures


def bench_ppg_rhythm(data: Path) -> dict:
    """PPG scores by rhythm."""
    figures = rated_scores.bench_ppg_rhythm(data)
    show_intervals("ppg_rhythm", figures)
    return figures


def bench_rates(data: Path) -> dict:
    """Rates of synthetic pulses and QRS complexes from 25 to 300 a minute."""
    figures = rated_scores.bench_rates(data)
    show_figures("rates", figures)
    return figures


# ---- falls as noise rises


def noisy_versions(kind: str, x_BN: np.ndarray, rate_hz: float, seed: int) -> list[np.ndarray]:
    """Return x_BN at each level of a noise or dropout, from weak to strong."""
    rng = np.random.default_rng(seed)
    if kind.startswith("dropout"):
        fill = kind.partition("_")[2] or "nan"
        return [noise.add_dropout(x_BN, share, rng, rate_hz, fill=fill) for share in DROPOUTS]
    return [noise.add_noise(x_BN, kind, snr_db, rng, rate_hz) for snr_db in SNRS_DB]


def bench_noise(data: Path) -> dict:
    """Mean score of clean BIDMC segments as noise is added, at 300 Hz so that mains and EMG exist."""
    raw = {role: np.concatenate([part[role] for _, part, _ in load_bidmc(data)]) for role in ("ecg", "ppg")}
    figures: dict = {}
    for role, x_BN in raw.items():
        clean_B = measure({role: x_BN})[f"{role}_waveform"]
        chosen_B = np.flatnonzero(clean_B >= 0.9)[::3][:160]
        x_BT = filters.resample(x_BN[chosen_B], LENGTH)
        before_B = measure({role: x_BT})[f"{role}_waveform"]
        figures[role] = {"segments": len(chosen_B), "clean": float(before_B.mean())}
        for kind in (*noise.NOISES, "dropout", "dropout_hold"):
            after = [measure({role: y_BT})[f"{role}_waveform"] for y_BT in noisy_versions(kind, x_BT, 300.0, 7)]
            means = [round(float(after_B.mean()), 5) for after_B in after]
            below = float((after[-1] < before_B).mean())
            figures[role][kind] = {"means": means, "below_clean": below}
            show(
                f"{role} {kind:12} {[f'{m:.3f}' for m in means]} below clean at the last {below:.3f} of {len(chosen_B)}"
            )
    return figures


# ---- synthetic rhythms, speed


def bench_synthetic(_data: Path) -> dict:
    """Scores of synthetic rhythms, clean and at white noise of 10 dB."""
    figures: dict = {}
    for rhythm in synthetic.RHYTHMS:
        made = [synthetic.recording(seed, duration_s=150.0, rhythm=rhythm) for seed in range(12)]
        for role in ("ppg", "ecg", "abp"):
            clean_BN = np.concatenate([getattr(one, role).reshape(-1, LENGTH) for one in made])
            noisy_BN = noise.add_noise(clean_BN, "white", 10.0, np.random.default_rng(1), 300.0)
            line = {}
            for name, x_BN in (("clean", clean_BN), ("white_10db", noisy_BN)):
                columns = measure({role: x_BN})
                line[f"median_{name}"] = round(float(np.median(columns[f"{role}_waveform"])), 3)
                line[f"mean_{name}"] = round(float(columns[f"{role}_waveform"].mean()), 3)
                line[f"author_{name}"] = round(float(np.median(columns[f"{role}_author"])), 3)
            figures[f"{role}_{rhythm}"] = line
            show(f"{role} {rhythm:12} {line}")
    return figures


def bench_speed(data: Path, batches: Sequence[int] = (10, 40, 160), repeats: int = 9) -> dict:
    """CPU seconds of `measure` on cinc2015_vt segments, both variants, by segments a call."""
    parts = [load_windows(r, ["ppg", "ecg"]) for r in load_recordings(data / "cinc2015_vt", ["ppg", "ecg"])[:32]]
    raw = {role: np.concatenate([part[role] for part in parts]) for role in ("ppg", "ecg")}
    rates: dict[int, list[float]] = {batch: [] for batch in batches}
    count = len(raw["ecg"]) // max(batches) * max(batches)
    for _ in range(repeats):
        for batch in batches:
            start = time.process_time()
            for first in range(0, count, batch):
                measure({role: x_BN[first : first + batch] for role, x_BN in raw.items()})
            rates[batch].append(count / (time.process_time() - start))
    figures = {f"segments_per_s_at_{batch}": round(float(np.median(rate))) for batch, rate in rates.items()}
    show_figures("speed", figures)
    return figures


def show(line: str) -> None:
    """Print a line of a table."""
    print(line, file=sys.stderr)


def show_figures(title: str, figures: dict) -> None:
    """Print figures below each other."""
    for name, value in figures.items():
        show(f"{title}: {name} = {value:.4f}" if isinstance(value, float) else f"{title}: {name} = {value}")


def show_intervals(title: str, figures: dict[str, tuple[float, float, float]]) -> None:
    """Print figures below each other, each with its interval."""
    for name, (value, low, high) in figures.items():
        show(f"{title}: {name} = {value:.4f} ({low:.4f} to {high:.4f})")


BENCHES: dict[str, Callable[[Path], dict]] = {
    "beats": bench_beats,
    "bidmc": bench_bidmc,
    "cinc2017": bench_cinc2017,
    "cpsc2021": bench_cpsc2021,
    "cinc2015": bench_cinc2015,
    "ratings": bench_ratings,
    "ppg_rhythm": bench_ppg_rhythm,
    "rates": bench_rates,
    "noise": bench_noise,
    "synthetic": bench_synthetic,
    "speed": bench_speed,
}

if __name__ == "__main__":
    run_command(main)
