"""The panel's choice of weights, and the user's own words: chosen, saved with the scene, and what a run gets."""

import pytest
from panel_cases import (  # noqa: F401
    act,
    actions,
    make_panel_fixture,
    nodes_fixture,
    open_panel_fixture,
    qt,
    scene_fixture,
    slicer,
    tiny_weights_fixture,
    wait_until,
    want,
)
from test_preflight_panel import FINE, Checked, asked, press  # noqa: F401

from NPCSynthLib.inference.preflight import AMBER, GREEN, Check
from NPCSynthLib.model import store
from NPCSynthPanel import dependencies, parameters
from NPCSynthPanel.settings import SettingsSection


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's own folder of weights."""
    monkeypatch.setattr(store, "store_folder", lambda: tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def choose(monkeypatch):
    """What the user chooses when asked for a file."""
    return lambda path: monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_a: str(path))


@pytest.fixture(scope="module")
def few_weights(tmp_path_factory):
    """Folder of weights that were trained on three sequences only."""
    pytest.importorskip("torch")
    pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
    from tiny_weights import write_tiny_weights

    return write_tiny_weights(tmp_path_factory.mktemp("few"), ("T1", "T1C", "FLAIR"))


@pytest.fixture
def use_few(choose, few_weights):
    """Imports and chooses these in a panel; returns its settings."""
    def use(panel):
        settings = panel.section(SettingsSection)
        choose(few_weights / "manifest.json")
        settings.importButton.click()
        return settings

    return use


def items(box):
    return [box.itemText(number) for number in range(box.count)]


def test_imported_weights_are_used_by_the_next_run(nodes, make_panel, choose, tiny_weights, home):
    computer = Checked(FINE)
    panel = make_panel(computer)
    settings = panel.section(SettingsSection)
    assert items(settings.weightsComboBox) == ["as shipped"]
    choose(tiny_weights / "manifest.json")
    settings.importButton.click()
    assert settings.weightsComboBox.currentText == "tiny 0.0" and "verified" in panel.run.statusLabel.text
    want(panel, "T1C")
    press(panel, panel.run.runButton)
    assert [used.weights.parent for used in computer.checked + computer.computed] == [home, home]
    settings.weightsComboBox.currentIndex = 0
    press(panel, panel.run.checkButton)
    assert computer.checked[-1].weights is None


def test_the_choice_of_weights_is_saved_and_its_absence_is_said(nodes, make_panel, choose, tiny_weights):
    panel = make_panel(Checked(FINE))
    choose(tiny_weights / "manifest.json")
    panel.section(SettingsSection).importButton.click()
    again = make_panel(Checked(FINE))
    assert again.section(SettingsSection).weightsComboBox.currentText == "tiny 0.0"
    again._parameterNode.weights = "feedbeef"
    elsewhere = make_panel(Checked(FINE))
    assert "not on this computer" in elsewhere.section(SettingsSection).weightsComboBox.currentText
    elsewhere.run.runButton.click()
    assert not elsewhere.runner.running and "Import them again" in elsewhere.run.statusLabel.text


def test_damaged_weights_are_not_imported(nodes, make_panel, choose, tmp_path):
    panel = make_panel()
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    choose(tmp_path / "bad.zip")
    panel.section(SettingsSection).importButton.click()
    assert "bad.zip is no zip file" in panel.run.statusLabel.text and panel._parameterNode.weights == ""


def test_giving_up_the_choice_of_a_file_changes_nothing(nodes, make_panel, choose):
    panel = make_panel()
    choose("")
    panel.section(SettingsSection).importButton.click()
    assert panel._parameterNode.weights == "" and panel.run.statusLabel.text == ""


def test_the_model_card_is_one_click_away(nodes, make_panel):
    settings = make_panel().section(SettingsSection)
    settings.cardButton.click()
    (browser,) = settings._card.findChildren(qt.QTextBrowser)
    assert "NPCSynth" in browser.toPlainText() and not settings._card.isHidden()
    settings.cleanup()
    assert settings._card is None


# ---- what the weights know --------------------------------------------------------------------------------------


def test_sequences_that_the_weights_do_not_know_are_not_offered_for_synthesis(nodes, make_panel, use_few):
    panel = make_panel(Checked(FINE))
    use_few(panel)
    assert panel._parameterNode.targets() == ["T1C", "FLAIR"]
    assert actions(panel.study.rows["PD"]) == ["leave"] and panel.study.rows["PD"].action.currentText == "leave"
    assert actions(panel.study.rows["T2"]) == ["use", "leave"], "acquired: it still helps to make the others"
    assert panel.prompts.rows["PD"][1].isHidden()


def test_a_row_says_why_its_sequence_cannot_be_made(nodes, make_panel, use_few):
    panel = make_panel()
    use_few(panel)
    reason = panel.study.rows["PD"].reason
    assert not reason.isHidden() and reason.text == (
        "PD cannot be synthesized: the weights chosen under “Settings” have not learned it.")
    assert panel.study.rows["T1C"].reason.isHidden()


def test_a_run_asks_only_for_what_the_weights_know(nodes, make_panel, use_few):
    computer = Checked(FINE)
    panel = make_panel(computer)
    act(panel, "T2", "synthesize")  # acquired, to be compared with
    use_few(panel)
    press(panel, panel.run.runButton)
    (request,) = computer.computed
    assert request.targets == ("T1C", "FLAIR") and "T2" in panel._parameterNode.sources()


def test_the_shipped_weights_bring_back_every_sequence_and_what_was_chosen(nodes, make_panel, use_few):
    panel = make_panel()
    act(panel, "T1FS", "leave")
    act(panel, "T2", "synthesize")
    before = panel._parameterNode.targets()
    settings = use_few(panel)
    settings.weightsComboBox.currentIndex = 0
    assert panel._parameterNode.targets() == before and "T2" in before and "T1FS" not in before
    assert all(row.reason.isHidden() for row in panel.study.rows.values())


def test_weights_chosen_elsewhere_are_asked_once_they_are_imported(nodes, make_panel, use_few, home):
    panel = make_panel()
    key = use_few(panel)._parameterNode.weights
    (home / key).rename(home.parent / "taken away")
    parameters._sequencesOf.cache_clear()  # as on another computer
    elsewhere = make_panel()
    assert "PD" in elsewhere._parameterNode.targets() and elsewhere.study.rows["PD"].reason.isHidden()
    use_few(elsewhere)
    assert elsewhere._parameterNode.weights == key and actions(elsewhere.study.rows["PD"]) == ["leave"]


# ---- own words --------------------------------------------------------------------------------------------------


def write(panel, target, words):
    """Do what a user does: type, letter by letter."""
    edit = panel.prompts.rows[target][1]
    edit.clear()
    edit.textEdited.emit("")
    for letter in words:
        edit.insert(letter)
        edit.textEdited.emit(edit.text)


def test_own_words_are_folded_away_and_offered_for_targets_alone(nodes, make_panel):
    panel = make_panel()
    assert panel.prompts.widget.collapsed
    shown = [sequence for sequence, (_label, edit, _mark) in panel.prompts.rows.items() if not edit.isHidden()]
    assert shown == panel._parameterNode.targets()
    assert panel.prompts.rows["T1C"][1].placeholderText.startswith("T1-weighted, contrast-enhanced")
    act(panel, "T1C", "leave")
    assert panel.prompts.rows["T1C"][1].isHidden()


def test_own_words_reach_the_run_and_are_saved_with_the_scene(nodes, make_panel):
    computer = Checked(FINE)
    panel = make_panel(computer)
    write(panel, "T2FS", " T2-weighted, fat suppressed, TE 90 ms ")
    write(panel, "PD", "proton density")
    want(panel, "T2FS", "T1C")
    press(panel, panel.run.runButton)
    for used in computer.checked + computer.computed:
        assert used.prompts == {"T2FS": "T2-weighted, fat suppressed, TE 90 ms"}, "of the targets alone"
    again = make_panel()
    assert again.prompts.rows["T2FS"][1].text == "T2-weighted, fat suppressed, TE 90 ms"
    write(again, "T2FS", "  ")
    assert again._parameterNode.prompts == {"PD": "proton density"}


def test_words_that_the_model_does_not_know_are_marked_until_they_change(nodes, make_panel):
    unknown = Check("T2FS: words", AMBER, "The model does not know these words: zebra.")
    panel = make_panel(Checked(unknown, Check("PD: words", GREEN, "The model knows all of your words.")))
    write(panel, "T2FS", "T2 zebra")
    press(panel, panel.run.checkButton)
    _label, _edit, mark = panel.prompts.rows["T2FS"]
    assert "zebra" in mark.text and not mark.isHidden() and not panel.prompts.widget.collapsed
    assert panel.prompts.rows["PD"][2].isHidden()
    write(panel, "T2FS", "T2")
    assert mark.isHidden() and mark.text == ""


def test_own_words_are_fixed_during_a_run(nodes, make_panel):
    panel = make_panel(Checked(FINE))
    panel.run.runButton.click()
    assert not panel.prompts.rows["T1C"][1].enabled
    panel.run.cancelButton.click()
    assert panel.prompts.rows["T1C"][1].enabled


def test_what_own_words_need_is_installed_only_for_them(nodes, make_panel, monkeypatch):
    real = dependencies.importlib.util.find_spec
    monkeypatch.setattr(
        dependencies.importlib.util, "find_spec", lambda name: None if name == "open_clip" else real(name)
    )
    panel = make_panel(Checked(FINE))
    slicer.packaging.requested.clear()
    press(panel, panel.run.checkButton)
    assert len(slicer.packaging.requested) == 1
    write(panel, "T2FS", "T2 TE 90 ms")
    press(panel, panel.run.checkButton)
    requirements, constraints, _requester = slicer.packaging.requested[-1]
    assert [r.name for r in requirements] == ["open_clip_torch"] and "torch==" in constraints
