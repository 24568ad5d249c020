"""A card from a stranger: every field is typed and bounded, and named, before anything is computed with it."""

import json
import math

import pytest

import jaxbio
from jaxbio.config.faults import UserError
from jaxbio.export import card as cards
from jaxbio.export import folder
from jaxbio.export.encoder_fields import find_encoder_faults
from jaxbio.models import ENCODERS

HUGE = 10**400
FINGERPRINTS = [("1", "0" * 64), (-1, "0" * 64), (HUGE, "0" * 64), (1, "0"), (1, None), (1, "G" * 64), (True, "0" * 64)]


@pytest.fixture
def change(export_folder, tmp_path):
    """A function that returns an export whose card has one changed field, named with dots; its files are links."""

    def write(name, value):
        card = json.loads((export_folder / cards.CARD).read_text())
        *path, last = name.split(".")
        at = card
        for part in path:
            at = at[part]
        at[last] = value
        out = tmp_path / "export"
        out.mkdir(exist_ok=True)
        for file in (cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE):
            if not (out / file).is_symlink():
                (out / file).symlink_to(export_folder / file)
        (out / cards.CARD).write_text(json.dumps(card))
        return out

    return write


WRONG = {
    "encoder": (None, 3, ["x"], {}, "", "Qualityfm", "os.system", "x" * 1000),
    "encoder_fields": (None, [], "x", {}, {"width": 512}, {"fields": {}}),
    "encoder_fields.width": (0, -4, 99, 101.5, "big", None, True, 10**5, 10**9, HUGE, [512], math.nan),
    "encoder_fields.layers": (0, -1, "1", 1.0, 10**5, 10**9),
    "encoder_fields.heads": (0, -2, 3, None, 10**9, {"encoder": "qualityfm", "fields": {}}),
    "encoder_fields.feedforward": (0, -1, [], 10**9),
    "encoder_fields.window": (-2, 3, 10**12, "8"),
    "encoder_fields.dropout": (2, -0.1, math.nan, math.inf, "0.1", None),
    "encoder_fields.dtype": ("object", "float64", 3, None, "x" * 10**4),
    "encoder_fields.tokenizer": ("evil", None, 1),
    "encoder_fields.remat": ("all", True),
    "encoder_fields.unroll": (0, -1, 10**9, "1"),
    "encoder_fields.dropout_bits": ("os.urandom", 8),
    "encoder_fields.parent": ("x", None),
    "encoder_fields.name": ("x",),
    "encoder_fields.colour": (1,),
    "which": (None, 1, []),
    "parameters": (0, -1, "many", 2.5, None, 17, HUGE, True),
    "rate_hz": (0, -300, "300", None, math.nan, math.inf, 1e9, HUGE, [300], True),
    "length": (-5, "9", 0, 10**12, 9000.0, None, HUGE, 100, 9001),
    "channels": (3, [], [None, "ecg"], ["ppg", "ppg"], ["os"], "ppg", {"ppg": 1}, [["ppg"]], ["ppg"], ["ppg"] * 10**4),
    "scaling": ("evil", None, 1, "Joint"),
    "crop_s": (0, -1, 0.01, 31, math.inf, HUGE, "10", 1.2345, [1]),
    "crops": (0, -1, 2, 1.5, "1", None, 10**9),
    "band_hz": (8, [], [1], [8, 0.5], [0.5, 150], [-1, 3], ["a", "b"], [math.nan, 3], [1, math.inf], [HUGE, 2 * HUGE]),
    "band_order": (0, -1, 11, 10**9, "2", None, 2.0),
    "band_design": ("butter", None, []),
    "standardise": ("evil", None, 0),
    "token_s": (0, -1, "1", None, math.nan, math.inf, 3.0, HUGE),
    "width": (0, -1, "512", None, 501, 10**9, HUGE),
    "pooling": ("max", None, 1),
    "missing_channel": ("ones", None, 0),
    "objective": (3, [], {}),
    "steps": (-1, "3", 2.5, HUGE),
    "store_hash": (3, []),
    "metrics": (None, [], 3, {"loss": "x"}, {"loss": [1]}, {str(n): 0 for n in range(1001)}),
    "source": (None, 1, {}),
    "licence": (None, ["MIT"]),
    "versions": (None, [], {"jax": 1}),
    "seen": (None, {}, 3),
    "files": ({}, None, ["a"], 3, {cards.WEIGHTS: "x"}, {cards.WEIGHTS: {"bytes": 1, "sha256": "0" * 64}}),
    "files.a": ({}, *({"bytes": size, "sha256": digest} for size, digest in FINGERPRINTS)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_field_may_not_hold_is_refused_by_its_name(change, name):
    for value in WRONG[name]:
        out = change(name, value)
        with pytest.raises(UserError) as caught:
            folder.read_export(out)
        said = str(caught.value)
        section = name.split(".")[0]
        # The input's fields bound each other, and the weights have the last word on sizes.
        assert f"card.json: {section}" in said or "names or shapes" in said or section in ("length", "channels"), said
        assert "card.json" in said or "params.safetensors" in said
        assert len(said) < 20_000


@pytest.mark.parametrize("band_hz", [[1e-300, 8], [1e-9, 40], [1.0, 1.0 + 1e-9]])
def test_a_filter_that_remembers_for_ever_is_refused(change, band_hz):
    with pytest.raises(UserError, match=r"card\.json: band_hz.*remembers"):
        cards.read_card(change("band_hz", band_hz))


def test_all_wrong_fields_are_named_together(change):
    out = change("rate_hz", 0)
    card = json.loads((out / cards.CARD).read_text())
    (out / cards.CARD).write_text(json.dumps({**card, "scaling": "evil", "pooling": "max"}))
    with pytest.raises(UserError) as caught:
        cards.read_card(out)
    assert [fault.field.split(": ")[1] for fault in caught.value.faults] == ["rate_hz", "scaling", "pooling"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("rate_hz", 300), ("objective", None), ("steps", None), ("store_hash", None), ("metrics", {"loss": None})],
        *[("metrics", {"loss": math.nan}), ("licence", ""), ("source", "a\nb\x1b[31m"), ("encoder_fields.dropout", 0)],
        *[("versions", {}), ("crop_s", None), ("encoder_fields.unroll", 2)],
    ],
)
def test_what_a_field_may_hold_is_read(change, name, value):
    assert jaxbio.load_pretrained(change(name, value), check=False).card.width == 502


@pytest.mark.parametrize(
    "text",
    [
        *["[" * 100_000, '{"a":' * 100_000, '{"schema": ' + "9" * 5000 + "}", '{"schema": 1e999}', "null", "2", '"x"'],
        *['{"schema": true}', '{"schema": 0}', '{"schema": -1}', '{"schema": "2"}', '{"schema": 2}', "\ufeff{}", "\0"],
        *['{"schema": 1}', '{"schema": 9' + "9" * 4000 + "}", '{"schema": 2, "' + "x" * 10**5 + '": 1}'],
    ],
)
def test_a_text_that_is_no_card_is_refused_in_a_line(tmp_path, text):
    (tmp_path / cards.CARD).write_text(text)
    with pytest.raises(UserError, match=r"card\.json") as caught:
        cards.read_card(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_no_encoder_takes_what_is_no_number_text_or_list(encoder):
    for value in (10**9, -(10**9), HUGE, math.nan, math.inf, {"a": 1}, [[]] * 200, "x" * 200, {"encoder": "os"}):
        faults = list(find_encoder_faults(encoder, {name: value for name in fields_of(encoder)}, "card.json"))
        assert len(faults) == len(fields_of(encoder))
        assert all("card.json: encoder_fields." in fault.field for fault in faults)


def fields_of(encoder):
    unknown = next(iter(find_encoder_faults(encoder, {"no such field": 1}, "card.json")))
    return unknown.remedy.split(" has ")[1].split(";")[0].split(", ")


def test_encoders_within_encoders_end():
    fields = {"encoder": "resnet1d", "fields": {"depth": 18}}
    for _ in range(800):
        fields = {"encoder": "projected", "fields": {"encoder": fields}}
    (fault,) = find_encoder_faults("projected", {"encoder": fields}, "card.json")
    assert fault.field.startswith("card.json: encoder_fields.encoder.encoder")


def test_an_encoder_of_too_many_layers_is_not_built_to_the_end(change, monkeypatch):
    monkeypatch.setattr(folder, "_MOST_CALLS", 100)
    out = change("encoder", "resnet1d")
    card = json.loads((out / cards.CARD).read_text())
    fields = {"depth": 18, "blocks": [60_000, 1, 1, 1], "dtype": "float32"}
    (out / cards.CARD).write_text(json.dumps({**card, "encoder_fields": fields}))
    with pytest.raises(UserError, match=r"encoder_fields.*layers"):
        folder.read_export(out)


def test_no_card_is_written_that_would_not_be_read(export_folder, tmp_path):
    card = cards.read_card(export_folder)
    for file in card.files:
        (tmp_path / file).symlink_to(export_folder / file)
    wrong = type(card)(**{**vars(card), "scaling": "evil"})
    with pytest.raises(UserError, match="scaling"):
        cards.write_card(tmp_path, wrong, card.files)
    assert not (tmp_path / cards.CARD).exists()
