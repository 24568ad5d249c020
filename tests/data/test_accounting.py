"""Every second of every folder of JAXBIO_DATA is kept or rejected with a reason, whatever its format."""

import csv
import math

import pytest
from prepared import small_config

from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import list_recordings, parse_source
from jaxbio.data.store import open_store

# Folder -> (its source line without the path, channels, seconds of a segment).
FOLDERS = {
    "bidmc": ("csv:{}?rate_hz=125&glob=*_Signals.csv.gz", ("ppg", "ecg"), 30.0),
    "cinc2015_vt": ("wfdb:{}", ("ppg", "ecg"), 30.0),
    "cinc2017": ("wfdb:{}", ("ecg",), 9.0),
    "cinc2021_12lead": ("wfdb:{}", ("i", "ii", "v1"), 10.0),
    "cpsc2021_af": ("wfdb:{}", ("i", "ii"), 30.0),
    "ppg_misc": ("csv:{}?rate_hz=100&columns=ppg:hr&glob=heartpy*.csv.gz", ("ppg",), 10.0),
    "ptbxl_sample": ("wfdb:{}", ("ii",), 10.0),
    "welltory_ppg": ("csv:{}?time=time:ms&columns=ppg:R&glob=*/PPG.csv", ("ppg",), 30.0),
    "wfdb_samples": ("wfdb:{}", ("ecg",), 10.0),
}


def test_every_folder_of_recordings_is_accounted_for(data_dir):
    """Folders without recordings of a second: ratings, and short windows that are no signals (`ppg_rhythm`)."""
    assert {folder.name for folder in data_dir.iterdir() if folder.is_dir()} == {*FOLDERS, "ratings", "ppg_rhythm"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_seconds_in_are_seconds_kept_and_rejected(name, data_dir, tmp_path):
    line, channels, segment_s = FOLDERS[name]
    source = parse_source(line.format(data_dir / name))
    changes = {"data__channels": channels, "data__segment_s": segment_s, "pairs__rule": "all_segments"}
    config = small_config(**changes, prepare__shard_bytes=2**26)
    names = {role: config.prepare.channel_names[role] for role in channels}
    listed_s = math.fsum(entry.duration_s for entry in list_recordings(source, names))
    account = prepare_store([source], config, tmp_path / "store", progress=False)["account"]
    assert account["total_s"] == pytest.approx(listed_s, abs=1e-6)
    assert account["kept_s"] + math.fsum(account["rejected_s"].values()) == pytest.approx(listed_s, abs=1e-6)
    assert account["kept_s"] == pytest.approx(open_store(tmp_path / "store").column("start_s").size * segment_s)
    with (data_dir / name / "manifest.csv").open() as file:
        manifest_s = math.fsum(float(row["duration_s"]) for row in csv.DictReader(file))
    if name not in ("ppg_misc", "wfdb_samples"):  # whose manifests have other files, or parts of these
        assert listed_s == pytest.approx(manifest_s, rel=2e-3)
