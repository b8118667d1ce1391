"""The player's settings on disk."""
import pytest

from worldplay.client.settings import Settings, load_settings, save_settings


@pytest.mark.parametrize("text", ["{", "[]", '{"scaling": "odd"}', '{"colour": 1}', '{"window_size": [5, 5]}',
                                  '{"degrees_per_count": "x"}', '{"window_size": 3}', '{"show_hud": 1}'])
def test_a_bad_settings_file_is_said_and_the_defaults_serve(tmp_path, caplog, text):
    (tmp_path / "settings.json").write_text(text)
    assert load_settings(tmp_path / "settings.json") == Settings()
    [said] = caplog.messages
    assert "settings.json" in said and "defaults" in said and "\n" not in said


def test_settings_that_are_missing_or_cannot_be_saved(tmp_path, caplog):
    assert load_settings(tmp_path / "none.json") == Settings() and not caplog.messages
    (tmp_path / "file").touch()
    save_settings(Settings(), tmp_path / "file" / "settings.json")
    assert len(caplog.messages) == 1
