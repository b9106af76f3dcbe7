"""The pages: their links lead somewhere, and every message that a user can meet is on the troubleshooting page."""

import re
from pathlib import Path

import message_list
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "weights" / "MODEL_CARD.md", *sorted((ROOT / "Resources" / "Docs").glob("*.md"))]


def anchor(heading):
    """As GitHub makes it from a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, part = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if part:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            assert part in map(anchor, headings), f"{page.name}: {target}"


def test_every_picture_is_shown_with_a_text_that_says_what_is_on_it():
    shown = [found for page in PAGES for found in re.findall(r"!\[([^]]*)\]\(([^)]*)\)", page.read_text("utf-8"))]
    assert all(text for text, _ in shown), "for those who cannot see it"
    pictures = {path.name for path in (ROOT / "Resources" / "Screenshots").iterdir()}
    assert pictures == {Path(target).name for _, target in shown if "Screenshots" in target}


def test_the_tutorial_shows_what_contour_qa_looks_like():
    page = (ROOT / "Resources" / "Docs" / "tutorial.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## \d+\. Contour QA\n(.*?)^## ", page, re.M | re.S)
    assert "(../Screenshots/contours.png)" in section


def test_every_message_is_on_the_troubleshooting_page():
    page = message_list.PAGE.read_text(encoding="utf-8")
    missing = [
        text for texts in message_list.messages().values() for text in texts
        if message_list.beginning(text) not in page
    ]
    assert not missing, f"Run python Testing/message_list.py; missing: {missing}"


def test_messages_are_found_in_every_manner_of_writing_them():
    found = {text for texts in message_list.messages().values() for text in texts}
    assert "No source was chosen. Choose at least one MR volume." in found  # _("...")
    assert any(text.startswith("“…” was chosen twice") for text in found)  # _("... {name} ...").format
    assert any("cannot be written (…). Free some disk space" in text for text in found)  # f"..." in two parts
    assert len(found) > 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_on_the_pages_exist(page):
    from typer.main import get_command

    from NPCSynthLib.cli.main import app

    known = set(get_command(app).commands)
    named = set(re.findall(r"^npcsynth (\w+)|`npcsynth (\w+)", page.read_text(encoding="utf-8"), re.M))
    assert {first or second for first, second in named} <= known


def options_of(command) -> set[str]:
    """All options of a command of click's, and of the commands within it."""
    within = getattr(command, "commands", {}).values()
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}.union(
        *(options_of(one) for one in within))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_options_on_the_pages_exist(page):
    from typer.main import get_command

    from NPCSynthLib.cli.main import app

    commands = get_command(app).commands
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    snippets = re.findall(r"`npcsynth ([^`]+)`|npcsynth ([^`\n#&|]+)", text)
    for snippet in (first or second for first, second in snippets):
        name, _, rest = snippet.partition(" ")
        named = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest))
        assert not named or named <= options_of(commands[name]) | {"--help"}, snippet


def test_all_of_the_caution_stands_in_its_box():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("> [!CAUTION]")
    box = lines[start:lines.index("", start)]
    assert all(line.startswith(">") for line in box) and "many programs do not show it." in box[-1]
