"""The player's settings on disk: read, repaired field by field, written."""
import json

import pytest

from worldplay.client.settings import Settings, load_settings, save_settings


@pytest.mark.parametrize("text, words", [
    ("{", "no JSON"), ("[]", "list in place of an object"), ("[" * 100_000, "no JSON"), ("\ud800", "no JSON"),
    ('{"scaling": "odd"}', "scaling 'odd'"), ('{"scaling": []}', "scaling []"),
    ('{"colour": 1}', "unknown name 'colour'"),
    ('{"window_size": [5, 5]}', "window_size (5, 5)"), ('{"window_size": 3}', "window_size 3"),
    ('{"window_size": [1e999, 720]}', "window_size [inf, 720]"),
    ('{"window_size": [NaN, 720]}', "window_size [nan, 720]"),
    ('{"window_size": [100000000000000000000, 720]}', "window_size"),
    ('{"window_size": null}', "window_size None"),
    ('{"degrees_per_count": "x"}', "degrees_per_count 'x'"),
    ('{"degrees_per_count": NaN}', "degrees_per_count nan"),
    ('{"show_hud": 1}', "show_hud 1"), ('{"record_folder": 3}', "record_folder 3"),
    ('{"record_folder": ""}', "record_folder ''"),
    ('{"record_folder": "~no-such-user/clips"}', "record_folder")])
def test_what_cannot_be_used_is_said_in_one_line_and_repaired_with_a_backup(tmp_path, caplog, text, words):
    path = tmp_path / "settings.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    before = path.read_bytes()
    assert load_settings(path) == Settings()
    [said] = caplog.messages
    assert "settings.json" in said and words in said and "settings.json.bak" in said and "\n" not in said
    assert (tmp_path / "settings.json.bak").read_bytes() == before
    assert load_settings(path) == Settings() and len(caplog.messages) == 1, "the repaired file is whole"


def test_one_bad_field_leaves_the_others(tmp_path, caplog):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"window_size": [1, 2], "show_hud": True, "scaling": "whole", "old": 1}))
    assert load_settings(path) == load_settings(path) == Settings(show_hud=True, scaling="whole")
    [said] = caplog.messages
    assert "window_size (1, 2)" in said and "'old'" in said


def test_settings_that_are_missing_or_cannot_be_read_or_saved(tmp_path, caplog):
    assert load_settings(tmp_path / "none.json") == Settings() and not caplog.messages
    (tmp_path / "folder.json").mkdir()
    assert load_settings(tmp_path / "folder.json") == Settings()
    (tmp_path / "file").touch()
    save_settings(Settings(), tmp_path / "file" / "settings.json")
    assert len(caplog.messages) == 2
