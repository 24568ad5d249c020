"""How tables are written: delimiters, decimal marks, headers, units, missing cells, ends; one rule for all of them."""

import codecs
import gzip
import time

import numpy as np
import pytest
from small_files import NAMES

from jaxbio.data.recordings import Recording, RecordingError, Refused, list_recordings, parse_source

PPG = np.round(2 + np.sin(np.arange(992) / 7), 3)  # 31 s at 32 Hz
ECG = np.round(np.cos(np.arange(992) / 3), 3)


def listed(path, query="rate_hz=32", **options):
    return list_recordings(parse_source(f"csv:{path}?{query}"), NAMES, **options)


def one(path, query="rate_hz=32") -> Recording:
    (entry,) = listed(path, query)
    assert isinstance(entry, Recording), entry
    return entry


def check(recording, *, ppg=PPG, ecg=None, atol=1e-6):
    """The recording lasts 31 s and holds these signals."""
    assert recording.duration_s == 31.0
    for role, expected in (("ppg", ppg), ("ecg", ecg)):
        if expected is not None:
            read = recording.read(0.0, 31.0, [role])[role]
            np.testing.assert_allclose(read, expected.astype(np.float32), atol=atol)


def rows(*columns, line="{},{}"):
    return "".join(line.format(*(f"{cell:.3f}" for cell in cells)) + "\n" for cells in zip(*columns, strict=True))


def comma(text: str) -> str:
    return text.replace(".", ",")


TABLES = {
    "commas": "PPG,II\n" + rows(PPG, ECG),
    "commas and blanks": "PPG, II\n" + rows(PPG, ECG, line="{}, {}"),
    "semicolons": "PPG;II\n" + rows(PPG, ECG, line="{};{}"),
    "tabs": "PPG\tII\n" + rows(PPG, ECG, line="{}\t{}"),
    "one blank": "PPG II\n" + rows(PPG, ECG, line="{} {}"),
    "aligned columns": "      PPG       II\n" + rows(PPG, ECG, line="{:>9} {:>8}"),
    "aligned columns, names of two words": " PPG   ML II\n" + rows(PPG, ECG, line="  {:>9}    {:>8}  "),
    "tabs and aligned columns": "    PPG\t    II\n" + rows(PPG, ECG, line="  {:>9}\t{:>8}"),
    "quotes around all": '"PPG","II"\n' + rows(PPG, ECG, line='"{}","{}"'),
    "single quotes around names": "'PPG','II'\n" + rows(PPG, ECG),
    "Windows": ("PPG,II\n" + rows(PPG, ECG)).replace("\n", "\r\n"),
    "old Macintosh": ("PPG,II\n" + rows(PPG, ECG)).replace("\n", "\r"),
    "Excel's sep=": "sep=;\nPPG;II\n" + rows(PPG, ECG, line="{};{}"),
    "comments": "# made\n# by hand\n\nPPG,II\n" + rows(PPG, ECG),
    "decimal commas between semicolons": comma("PPG;II\n" + rows(PPG, ECG, line="{};{}")),
    "decimal commas between tabs": comma("PPG\tII\n" + rows(PPG, ECG, line="{}\t{}")),
    "decimal commas between blanks": comma("PPG II\n" + rows(PPG, ECG, line="{:>9} {:>9}")),
    "decimal commas in quotes": '"PPG","II"\n'
    + "".join(f'"{comma(str(a))}","{comma(str(b))}"\n' for a, b in zip(PPG, ECG)),
    "units below": "PPG,II\nNU,mV\n" + rows(PPG, ECG),
    "units below in brackets": "PPG\tII\n(NU)\t[mV]\n" + rows(PPG, ECG, line="{}\t{}"),
    "units below, one of them": "PPG,II\n,mV\n" + rows(PPG, ECG),
    "a comma behind every row": "PPG,II\n" + rows(PPG, ECG, line="{},{},"),
    "commas behind all lines": "PPG,II,,\n" + rows(PPG, ECG, line="{},{},,"),
    "a comma behind the header alone": "PPG,II,\n" + rows(PPG, ECG),
    "rows of empty cells at the end": "PPG,II\n" + rows(PPG, ECG) + ",\n" * 9,
    "blank lines at the end": "PPG,II\n" + rows(PPG, ECG) + "\n   \n\t\n\n",
    "no newline at the end": ("PPG,II\n" + rows(PPG, ECG)).rstrip("\n"),
    "a column of words": "PPG,note,II\n" + rows(PPG, ECG, line="{},rest,{}"),
    "row numbers of pandas": ",PPG,II\n" + "".join(f"{n},{a},{b}\n" for n, (a, b) in enumerate(zip(PPG, ECG))),
    "row numbers of R": '"PPG","II"\n' + "".join(f'"{n + 1}",{a},{b}\n' for n, (a, b) in enumerate(zip(PPG, ECG))),
    "numbers with signs and exponents": "PPG,II\n" + "".join(f"+{a:.6e},{b:+.3f}\n" for a, b in zip(PPG, ECG)),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_read_alike_however_they_are_written(tmp_path, case):
    (tmp_path / "a.csv").write_bytes(TABLES[case].encode())
    check(one(tmp_path), ecg=ECG)


ENCODINGS = {
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16 little-endian": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16 big-endian": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "Latin 1": (b"", "latin-1"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", ENCODINGS)
def test_texts_in_other_encodings_read_alike(tmp_path, case, packed):
    mark, encoding = ENCODINGS[case]
    content = mark + ("PPG,II,größe [µV]\n" + rows(PPG, ECG, PPG, line="{},{},{}")).encode(encoding)
    (tmp_path / "a.csv").write_bytes(gzip.compress(content) if packed else content)
    check(one(tmp_path), ecg=ECG)


def test_units_below_the_names_are_used(tmp_path):
    (tmp_path / "a.csv").write_text(
        "'Elapsed time','II','ABP'\r\n'hh:mm:ss.mmm','uV','kPa'\r\n" + rows(PPG, ECG, PPG, line="0:{},{},{}")
    )
    recording = one(tmp_path)
    assert {role: channel.unit for role, channel in recording.channels.items()} == {"ecg": "mV", "abp": "mmHg"}
    check(recording, ppg=None, ecg=ECG * 1e-3)


HEADERS_OF_NUMBERS = {
    "names behind row numbers": (
        ",0,1\n" + "".join(f"{n},{a},{b}\n" for n, (a, b) in enumerate(zip(PPG, ECG))),
        "1",
        ECG,
    ),
    "names alone": ("0,1\n" + rows(PPG, ECG), "1", ECG),
    "names of whole numbers": ("0,1,2\n" + "".join(f"{n},{n * 3},{n * 5}\n" for n in range(7, 999)), "2", None),
    "one name behind row numbers": (",0\n" + "".join(f"{n},{a}\n" for n, a in enumerate(PPG)), "0", PPG),
    "no names": (rows(PPG, ECG), "2", ECG),
    "no names, and a first row of whole numbers": ("2,1\n" + rows(PPG[1:], ECG[1:]), "2", ECG),
}


@pytest.mark.parametrize("case", HEADERS_OF_NUMBERS)
def test_a_column_is_the_one_that_the_file_calls_so(tmp_path, case):
    text, name, expected = HEADERS_OF_NUMBERS[case]
    (tmp_path / "a.csv").write_text(text)
    expected = 5.0 * np.arange(7, 999) if expected is None else expected
    check(one(tmp_path, f"rate_hz=32&columns=ppg:{name}"), ppg=expected)


def test_row_numbers_are_no_signal(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{n},{a}\n" for n, a in enumerate(PPG)))
    (entry,) = listed(tmp_path, "rate_hz=32&columns=ppg:1")
    assert entry.reason == "not_a_recording"
    assert "numbers the rows" in entry.detail
    check(one(tmp_path, "rate_hz=32&columns=ppg:2"))


SINGLE_COLUMNS = {
    "decimal commas": comma("".join(f"{a:.3f}\n" for a in PPG)),
    "decimal commas under a name": comma("PPG\n" + "".join(f"{a:.3f}\n" for a in PPG)),
    "points": "".join(f"{a:.3f}\n" for a in PPG),
    "points under a name": "PPG\n" + "".join(f"{a:.3f}\n" for a in PPG),
    "a comma behind every row": "PPG\n" + "".join(f"{a:.3f},\n" for a in PPG),
}


@pytest.mark.parametrize("case", SINGLE_COLUMNS)
def test_single_columns_read_alike(tmp_path, case):
    (tmp_path / "a.csv").write_text(SINGLE_COLUMNS[case])
    check(one(tmp_path, "rate_hz=32" if "PPG" in SINGLE_COLUMNS[case] else "rate_hz=32&columns=ppg:1"))


def test_below_zero_decimal_commas_read_too(tmp_path):
    (tmp_path / "a.csv").write_text(comma("".join(f"{b:.3f}\n" for b in ECG)))
    check(one(tmp_path, "rate_hz=32&columns=ecg:1"), ppg=None, ecg=ECG)


def test_two_columns_of_whole_numbers_stay_two(tmp_path):
    counts = np.random.default_rng(0).integers(100, 999, (992, 2))
    (tmp_path / "a.csv").write_text("".join(f"{a},{b}\n" for a, b in counts))
    check(one(tmp_path, "rate_hz=32&columns=ppg:1,ecg:2"), ppg=counts[:, 0], ecg=counts[:, 1])


def test_commas_that_may_be_either_are_asked_about_and_settled_by_an_option(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{7 + n // 10 % 3},{n % 10}\n" for n in range(992)))
    (entry,) = listed(tmp_path, "rate_hz=32&columns=ppg:1")
    assert entry.reason == "unreadable_file"
    assert "decimal=comma" in entry.detail
    check(
        one(tmp_path, "rate_hz=32&columns=ppg:1&decimal=comma"),
        ppg=7 + np.arange(992) // 10 % 3 + np.arange(992) % 10 / 10,
    )
    check(one(tmp_path, "rate_hz=32&columns=ppg:2&decimal=point"), ppg=np.arange(992) % 10)


def test_commas_that_are_both_are_refused_in_words(tmp_path):
    (tmp_path / "a.csv").write_text(comma(rows(PPG, 1 + ECG)))
    (entry,) = listed(tmp_path, "rate_hz=32&columns=ppg:1")
    assert entry.reason == "unreadable_file"
    assert "decimal commas" in entry.detail


MISSING = [
    "",
    " ",
    "n/a",
    "N/A",
    "#N/A",
    "NaN",
    "nan",
    "NAN",
    "-nan",
    "nan(ind)",
    "-1.#IND",
    "1.#QNAN",
    "NULL",
    "None",
    "NaT",
]
MISSING += ["-", "--", "-----", "?", ".", "*", "#VALUE!", "#DIV/0!", "<NA>", '""', "'-'", "missing", "na", "INOP"]


@pytest.mark.parametrize("cell", MISSING)
def test_missing_cells_of_every_spelling_are_missing_samples(tmp_path, cell):
    cells = [cell if n % 100 == 50 else f"{a:.3f}" for n, a in enumerate(PPG)]
    (tmp_path / "a.csv").write_text("PPG,x\n" + "".join(f"{a},0\n" for a in cells))
    check(one(tmp_path), ppg=np.where(np.arange(992) % 100 == 50, np.nan, PPG))


def test_further_words_for_missing_are_said_in_the_source_line(tmp_path):
    cells = {50: "-999", 150: "Lead, off", 250: "spilt"}
    lines = [f'"{cells[n]}"' if n in cells else f"{a:.3f}" for n, a in enumerate(PPG)]
    (tmp_path / "a.csv").write_text("PPG,x\n" + "".join(f"{a},0\n" for a in lines))
    recording = one(tmp_path, "rate_hz=32&missing=-999,lead%2C off,spilt")
    check(recording, ppg=np.where(np.isin(np.arange(992), list(cells)), np.nan, PPG))
    assert recording.reading != one(tmp_path).reading  # another store than without


def test_a_wrong_cell_costs_its_span_and_is_named_by_line_and_column(tmp_path):
    cells = [f"{a:.3f}" for a in PPG]
    cells[500] = "lead fell off"
    (tmp_path / "a.csv").write_text("# a comment\nx,PPG,II\n" + "".join(f"0,{a},1.5\n" for a in cells))
    recording = one(tmp_path)
    np.testing.assert_allclose(recording.read(0.0, 15.0, ["ppg"])["ppg"], PPG[:480], atol=1e-6)
    np.testing.assert_allclose(recording.read(16.0, 31.0, ["ppg"])["ppg"], PPG[512:], atol=1e-6)
    assert (recording.read(0.0, 31.0, ["ecg"])["ecg"] == 1.5).all()
    with pytest.raises(RecordingError) as caught:
        recording.read(15.0, 16.0, ["ppg", "ecg"])
    assert caught.value.reason == "unreadable_file"
    assert "line 503, column 'PPG': 'lead fell off' is no number" in caught.value.detail


@pytest.mark.parametrize(("line", "role"), [("0.5", "ecg"), ("1,2,3", "ppg"), ("1,2,3", "ecg")])
def test_a_ragged_row_costs_its_span(tmp_path, line, role):
    lines = rows(PPG, ECG).splitlines()
    lines[500] = line
    (tmp_path / "a.csv").write_text("PPG,II\n" + "\n".join(lines) + "\n")
    recording = one(tmp_path)
    assert np.isfinite(recording.read(0.0, 15.0, [role])[role]).all()
    with pytest.raises(RecordingError, match=r"line 502, column '(PPG|II)': [13] cells in the place of 2"):
        recording.read(15.0, 16.0, [role])


def test_a_table_that_is_mostly_wrong_is_refused_with_its_first_line(tmp_path):
    (tmp_path / "a.csv").write_text("x,PPG\n" + "1,2\n1,left\n" * 400)
    (entry,) = listed(tmp_path)
    assert isinstance(entry, Refused)
    assert (entry.reason, "line 3" in entry.detail, "'left'" in entry.detail) == ("unreadable_file", True, True)


@pytest.mark.parametrize("wrong", ["#N/A", "spilt"])
def test_one_odd_cell_near_the_end_costs_no_second_parse(tmp_path, wrong):
    rows_a_minute = "".join(f"{a:.4f},{b:.4f}\n" for a, b in np.random.default_rng(0).normal(size=(7500, 2)))
    lines = "".join([rows_a_minute] * 119)
    last = rows_a_minute.splitlines()
    last[-200] = f"{wrong},0.1"
    (tmp_path / "a.csv").write_text("PPG,II\n" + lines + "\n".join(last) + "\n")
    began = time.process_time()
    recording = one(tmp_path, "rate_hz=125")
    failed = []
    for start_s in range(0, 7200, 30):
        try:
            recording.read(start_s, start_s + 30, ["ppg", "ecg"])
        except RecordingError as error:
            failed += [str(error)]
    assert ["'spilt'" in said for said in failed] == [True] * (wrong == "spilt")
    assert time.process_time() - began < 1.5


def test_a_file_that_breaks_after_listing_is_parsed_once(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(("PPG,II\n" + rows(PPG, ECG) * 500).encode()))
    recording = one(tmp_path)
    broken = bytearray(path.read_bytes())
    broken[-3000] ^= 255
    path.write_bytes(bytes(broken))
    began = time.process_time()
    for start_s in range(0, 15_000, 30):
        with pytest.raises(RecordingError):
            recording.read(start_s, start_s + 30, ["ppg"])
    assert time.process_time() - began < 1.5
