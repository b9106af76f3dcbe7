"""The extension as Slicer finds it: in a source checkout, and installed. What goes to the Extensions Index."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_cmake import ROOT, cmake_list, metadata

pytest.importorskip("slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError)
pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of it is missing", exc_type=ImportError)

#: As an extension lies in Slicer's settings folder: NPCSynth/lib/Slicer-X.Y/qt-scripted-modules.
INSTALLED = Path("NPCSynth", "lib", "Slicer-5.12", "qt-scripted-modules")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the CMake lists name, and nothing else."""
    home = tmp_path_factory.mktemp("Slicer extensions") / INSTALLED
    lists = [
        ("NPCSynth", "NPCSynth/CMakeLists.txt", "MODULE_PYTHON_SCRIPTS", ""),
        ("NPCSynth", "NPCSynth/CMakeLists.txt", "MODULE_PYTHON_RESOURCES", ""),
        ("NPCSynthLib", "NPCSynthLib/CMakeLists.txt", "NPCSynthLib_SCRIPTS", "NPCSynthLib"),
        ("NPCSynthLib", "NPCSynthLib/CMakeLists.txt", "NPCSynthLib_RESOURCES", "NPCSynthLib"),
        ("", "Resources/CMakeLists.txt", "NPCSynth_DATA", "NPCSynthLib"),
    ]
    for source, file, name, target in lists:
        for entry in cmake_list(ROOT / file, name):
            path = home / target / entry
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source / entry, path)
    return home


#: What Slicer does with a module path: the module is imported and made, its panel opened, sample data loaded.
SESSION = """
import json, sys
sys.path = [folder for folder in sys.path if folder not in ("", {root!r})]
sys.path.insert(0, {testing!r})
from slicer_stand_in import install, load_module, new_scene, open_panel
slicer = install()
new_scene()
module = load_module({module!r})
load_module({plugin!r})
slicer.app.standInEmit("startupCompleted()")
heavy = [name for name in ("torch", "scipy", "SimpleITK", "pydicom", "monai") if name in sys.modules]
panel = open_panel(module.NPCSynthWidget)
panel.logic.loadPhantomPatient(size="small")
panel.study.detect()
import NPCSynthLib, NPCSynthPanel
from NPCSynthLib.model.weights import load_weights
model = load_weights()
print(json.dumps({{
    "library": NPCSynthLib.__file__, "panel": NPCSynthPanel.__file__,
    "sources": sorted(panel._parameterNode.sources()), "weights": str(model.folder),
    "heavy": heavy, "plugins": sorted(slicer.modules.dicomPlugins), "icon": not slicer.modules.npcsynth.icon.isNull(),
}}))
panel.cleanup()
"""


def session(folder):
    """Run the module that lies in ``folder`` in a Python of its own, from another folder, without PYTHONPATH."""
    code = SESSION.format(
        root=str(ROOT), testing=str(ROOT / "Testing"), module=str(folder / "NPCSynth.py"),
        plugin=str(folder / "DICOMNPCSynthPlugin.py"),
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("layout", ["source", "installed"])
def test_the_module_finds_library_resources_and_weights(layout, installed):
    folder = ROOT / "NPCSynth" if layout == "source" else installed
    home, data = (ROOT, ROOT) if layout == "source" else (installed, installed / "NPCSynthLib")
    found = session(folder)
    assert Path(found["library"]) == home / "NPCSynthLib" / "__init__.py"
    assert Path(found["panel"]) == folder / "NPCSynthPanel" / "__init__.py"
    assert found["sources"] == ["T1", "T2"] and found["icon"]
    assert found["heavy"] == [], "every start of Slicer would wait for these"
    assert found["plugins"] == ["DICOMNPCSynthPlugin"] and Path(found["weights"]) == data / "weights"


def test_the_worker_of_an_installed_module_is_its_own(installed):
    """The process that computes runs the library beside the module, whatever else is on the path."""
    code = "from NPCSynthLib.inference import process; print(process._HOME)"
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == installed


def test_pages_and_pictures_for_the_web_are_not_installed(installed):
    there = {path.suffix for path in installed.rglob("*")}
    data = installed / "NPCSynthLib" / "Resources"
    assert ".md" not in {p.suffix for p in data.rglob("*")} and ".json" in there
    assert data.is_dir() and not (data / "Screenshots").exists()


def test_files_of_other_extensions_are_not_taken_for_ours(installed):
    """What is bundled shares one folder, and "Resources" is everybody's name."""
    strange = installed / "Resources" / "requirements.txt"
    strange.write_text("somebody-elses-package", encoding="utf-8")
    code = "from NPCSynthLib.resources import resource_path; print(resource_path('Resources', 'requirements.txt'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, capture_output=True, text=True, check=True)
    strange.unlink()
    assert Path(done.stdout.strip()) == installed / "NPCSynthLib" / "Resources" / "requirements.txt"


# ---- the Extensions Index --------------------------------------------------------------------------------------

ENTRY = ROOT / "Resources" / "ExtensionsIndex" / "NPCSynth.json"
SCHEMA = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
#: Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json of Slicer: no other keys.
TYPES = {
    "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "build_dependencies": list,
    "build_subdirectory": str, "enabled": bool, "tier": int,
}  # fmt: skip


def test_the_entry_for_the_index_follows_its_schema():
    entry = json.loads(ENTRY.read_text(encoding="utf-8"))
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(TYPES)
    for key, value in entry.items():
        assert type(value) is TYPES[key], key
    assert entry["$schema"] == SCHEMA
    assert all(type(name) is str for name in entry["build_dependencies"])
    assert entry["scm_type"] in ("git", "local") and entry["tier"] in (1, 3, 5)


def test_the_entry_says_what_the_extension_says():
    entry, (values, text) = json.loads(ENTRY.read_text(encoding="utf-8")), metadata()
    assert ENTRY.stem == re.search(r"^project\((\w+)\)$", text, re.M).group(1)
    assert entry["scm_url"] == values["EXTENSION_HOMEPAGE"] and entry["scm_url"].endswith("/SlicerNPCSynth")
    assert entry["category"] == values["EXTENSION_CATEGORY"]
    assert entry["build_dependencies"] == values["EXTENSION_DEPENDS"].split()


def test_a_clone_stays_small():
    """The index takes extensions of up to 100 MB, their history included."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("not a git checkout with its history")
    # what can be reached from here, packed as a clone is; a checkout may hold more
    packed = subprocess.run(
        "git rev-list --objects HEAD | cut -d' ' -f1 | git cat-file --batch-check='%(objectsize:disk)'",
        shell=True, cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()
    files = [ROOT / name for name in git("ls-files", "-z").stdout.split("\0") if name]
    assert sum(map(int, packed)) + sum(path.stat().st_size for path in files if path.is_file()) < 100e6


def test_the_readme_has_what_the_index_asks():
    """Slicer/ExtensionsIndex, .github/PULL_REQUEST_TEMPLATE.md."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for needed in ("# NPCSynth", "![", "tutorial.md", "arxiv.org/abs/", "Apache-2.0", "Sample Data"):
        assert needed in readme, needed


# ---- tests that run in Slicer, and on GitHub -------------------------------------------------------------------


def test_tests_for_slicer_are_registered():
    text = (ROOT / "Testing" / "Python" / "CMakeLists.txt").read_text(encoding="utf-8")
    there = {path.name for path in (ROOT / "Testing" / "Python").glob("*.py")}
    assert set(re.findall(r"SCRIPT (\w+\.py)", text)) == there
    assert "add_subdirectory(Testing/Python)" in metadata()[1]


def test_what_the_workflows_name_is_there():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"(?:Testing|Resources|NPCSynth|\.ci)/[\w./-]*\w", text):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_the_workflow_for_tests_runs_the_readmes_command():
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert "test-command" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
