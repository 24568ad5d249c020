import json
import os
import shutil

import pytest

from jaxbio.config.faults import UserError
from jaxbio.export import card as cards
from jaxbio.export import folder


@pytest.fixture
def copy(export_folder, tmp_path):
    return shutil.copytree(export_folder, tmp_path / "export")


def change_card(copy, **changes):
    stored = json.loads((copy / cards.CARD).read_text())
    (copy / cards.CARD).write_text(json.dumps({**stored, **changes}))


def test_the_card_says_what_the_encoder_wants_and_gives(export_folder):
    card = cards.read_card(export_folder)
    assert (card.encoder, card.which, card.rate_hz, card.length) == ("qualityfm", "teacher", 300.0, 9000)
    assert (card.channels, card.scaling) == (("ppg", "ecg"), "per_channel")
    assert (card.width, card.pooling, card.missing_channel) == (502, "mean", "zeros")
    assert card.token_s == pytest.approx(5 / 3)
    assert card.encoder_fields["layers"] == 1
    assert set(card.files) == {cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE}


def test_a_whole_export_passes(export_folder):
    cards.check_files(export_folder, cards.read_card(export_folder))


def test_a_card_of_before_seen_npz_still_loads(copy):
    stored = json.loads((copy / cards.CARD).read_text())
    del stored["seen"]
    (copy / cards.CARD).write_text(json.dumps({**stored, "schema": 1}))
    assert cards.read_card(copy).seen == "not known"
    folder.read_export(copy)


def test_a_folder_without_card_is_no_export(tmp_path):
    with pytest.raises(UserError, match=r"card\.json.*export_params"):
        cards.read_card(tmp_path)


def test_a_newer_schema_is_refused(copy):
    change_card(copy, schema=cards.SCHEMA + 1)
    with pytest.raises(UserError, match="newer jaxbio"):
        cards.read_card(copy)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"name": "something else"}', "\udcff"])
def test_a_file_that_is_no_card_is_refused(copy, text):
    (copy / cards.CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"card\.json"):
        cards.read_card(copy)


def test_a_card_with_a_field_missing_or_unknown_names_it(copy):
    stored = json.loads((copy / cards.CARD).read_text())
    del stored["scaling"]
    (copy / cards.CARD).write_text(json.dumps({**stored, "colour": "red"}))
    with pytest.raises(UserError, match="colour, scaling"):
        cards.read_card(copy)


@pytest.mark.parametrize("name", [cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=rf"{name} = 'missing'"):
        folder.read_export(copy)


@pytest.mark.parametrize("name", [cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE])
def test_a_truncated_file_is_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-7])
    with pytest.raises(UserError, match=rf"{name}.*the card says"):
        folder.read_export(copy)


@pytest.mark.parametrize("name", [cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE])
def test_a_foreign_file_of_the_same_size_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*not the file this card was written with"):
        folder.read_export(copy)


def test_several_broken_files_are_named_together(copy):
    (copy / cards.EXAMPLE).unlink()
    (copy / cards.WEIGHTS).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        folder.read_export(copy)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("name", ["/dev/zero", "/etc/passwd", "../outside", "inner/file", "..", "", "a\0b", cards.CARD])
def test_a_card_names_files_of_its_own_folder_only(copy, name):
    (copy.parent / "outside").write_bytes(b"a secret of some size")
    files = json.loads((copy / cards.CARD).read_text())["files"]
    change_card(copy, files={**files, name: {"bytes": 0, "sha256": "0" * 64}})
    with pytest.raises(UserError, match=r"card\.json: files.*its own folder") as caught:
        folder.read_export(copy)
    assert "bytes" not in str(caught.value)


@pytest.mark.parametrize("name", [cards.CARD, cards.WEIGHTS, cards.EXAMPLE])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(UserError, match=rf"{name}.*no regular file"):
        folder.read_export(copy)


def test_a_link_to_a_device_is_refused_and_one_to_the_file_is_read(copy):
    moved = (copy / cards.WEIGHTS).rename(copy.parent / "elsewhere")
    (copy / cards.WEIGHTS).symlink_to(moved)
    folder.read_export(copy)
    (copy / cards.WEIGHTS).unlink()
    (copy / cards.WEIGHTS).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"params\.safetensors.*no regular file"):
        folder.read_export(copy)


def test_a_card_too_large_for_one_is_refused(copy):
    change_card(copy, source="x" * 2**20)
    with pytest.raises(UserError, match=r"card\.json.*at most"):
        cards.read_card(copy)


def test_an_unregistered_family_is_refused(copy):
    change_card(copy, encoder="nobody")
    with pytest.raises(UserError, match=r"nobody.*qualityfm"):
        folder.read_export(copy)


def test_unknown_constructor_fields_are_refused(copy):
    change_card(copy, encoder_fields={"colour": "red"})
    with pytest.raises(UserError, match="colour"):
        folder.read_export(copy)


def test_a_card_of_another_size_of_encoder_does_not_take_the_weights(copy):
    fields = json.loads((copy / cards.CARD).read_text())["encoder_fields"]
    change_card(copy, encoder_fields={**fields, "feedforward": 32})
    with pytest.raises(UserError, match="names or shapes that are not the model's"):
        folder.read_export(copy)
