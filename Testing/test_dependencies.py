"""What Slicer lacks is installed after asking; whatever comes of it is said, and Slicer's own packages stay."""

import re
import subprocess
import sys
import tempfile
import types

import numpy as np
import pytest
from panel_cases import (  # noqa: F401
    errors_fixture,
    make_panel_fixture,
    nodes_fixture,
    open_panel_fixture,
    scene_fixture,
    slicer,
)

from NPCSynthLib.errors import NPCSynthError
from NPCSynthPanel import dependencies


@pytest.fixture
def lacking(tmp_path, monkeypatch):
    """Slicer in use, not in testing mode, without a package that is asked for. Nothing may be left behind."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# needed\nnumpy>=1\n\nno-such-package-of-ours>=2.1\n", encoding="utf-8")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(dependencies, "resource_path", lambda *_parts: requirements)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.packaging, "installed", [])
    yield
    assert not list(temporary.iterdir())


@pytest.fixture
def asked(monkeypatch):
    """What the user was asked before an installation, and the answer."""
    asked = types.SimpleNamespace(answer=True, packages=[])

    def confirm(text, windowTitle=None, detailedText="", **_keywords):
        asked.packages.append(detailedText)
        return asked.answer

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    return asked


def test_only_what_is_missing_is_installed_and_slicers_packages_are_held(lacking, asked):
    dependencies.ensurePackages()
    assert asked.packages == ["- no-such-package-of-ours>=2.1"]
    (packages, constraints), = slicer.packaging.installed
    assert packages == ["no-such-package-of-ours>=2.1"] and f"numpy=={np.__version__}" in constraints.splitlines()


def test_a_user_who_declines_is_told_what_to_do(lacking, asked):
    asked.answer = False
    with pytest.raises(NPCSynthError, match="not installed.*Start again and accept"):
        dependencies.ensurePackages()
    assert not slicer.packaging.installed


def test_a_failing_installation_is_said(lacking, asked, monkeypatch):
    monkeypatch.setattr(slicer.packaging, "standInPipFails", True)
    with pytest.raises(NPCSynthError, match="could not be installed.*internet connection"):
        dependencies.ensurePackages()
    assert len(slicer.packaging.installed) == 1


def test_nobody_is_asked_when_all_is_there_or_slicer_tests_itself(lacking, asked, monkeypatch):
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: True)
    dependencies.ensurePackages()
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.packaging, "pip_check", lambda req: True)
    dependencies.ensurePackages()
    assert not asked.packages and not slicer.packaging.installed


@pytest.mark.parametrize("accepted", [False, True])
def test_a_run_without_its_packages_does_not_begin(nodes, make_panel, lacking, asked, errors, monkeypatch, accepted):
    panel = make_panel()
    asked.answer = accepted
    monkeypatch.setattr(slicer.packaging, "standInPipFails", True)
    panel.run.runButton.click()
    assert not panel.runner.running and panel.run.runButton.enabled and len(asked.packages) == 1
    said = "could not be installed" if accepted else "not installed"
    assert said in panel.run.statusLabel.text and len(errors) == 1


def test_while_packages_are_installed_nothing_else_installs_or_runs(nodes, make_panel, lacking, asked, errors,
                                                                    monkeypatch):  # fmt: skip
    """The buttons work on while pip does."""
    panel = make_panel()
    tried = []

    def while_installing(packages, **_keywords):
        tried.append(packages)
        panel.run.runButton.click()
        panel.run._parameterNode.setAction("T1C", "leave")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", while_installing)
    panel.run.runButton.click()
    assert len(tried) == 1 and not panel.runner.running
    assert "being installed" in errors[0] and "has changed meanwhile" in errors[-1]


def test_pip_is_told_to_leave_slicers_packages_alone():
    slicer.packaging.requested.clear()
    dependencies.ensureDependencies()
    (requirements, constraints, requester), = slicer.packaging.requested
    assert {"psutil", "safetensors", "contourpy"} <= {r.name for r in requirements}
    assert f"numpy=={np.__version__}" in constraints.splitlines()
    assert any(line.startswith("torch==") for line in constraints.splitlines())
    assert requester == "NPCSynth"


@pytest.mark.parametrize("accepted", [True, False])
def test_before_slicer_5_12_pip_is_asked_for_what_is_missing(monkeypatch, tmp_path, accepted):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# needed\nnumpy>=1\n\nno-such-package-of-ours>=2.1\n", encoding="utf-8")
    constraints = tmp_path / "constraints.txt"
    asked, installed = [], []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **kw: asked.append(text) or accepted)
    monkeypatch.setattr(slicer.util, "pip_install", installed.append)
    if accepted:
        dependencies._pipInstall(requirements, constraints)
        assert installed == [["--constraint", str(constraints), "no-such-package-of-ours>=2.1"]]
    else:
        with pytest.raises(RuntimeError):
            dependencies._pipInstall(requirements, constraints)
        assert not installed
    assert "no-such-package-of-ours" in asked[0] and "numpy" not in asked[0]


def test_on_an_intel_mac_nobody_is_sent_to_install_what_there_is_not(monkeypatch):
    """Slicer for macOS is one, on Apple's own processors too."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(dependencies.platform, "machine", lambda: "x86_64")
    with pytest.raises(NPCSynthError, match="not for this Slicer on macOS. Use Slicer on Windows or Linux"):
        dependencies.ensureDependencies()


def test_without_torch_the_extension_is_named(monkeypatch):
    real = dependencies.importlib.util.find_spec
    monkeypatch.setattr(dependencies.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(NPCSynthError, match="PyTorch.*Extensions Manager"):
        dependencies.ensureDependencies()


def test_a_failing_installation_of_torch_is_said(monkeypatch):
    class Logic:
        def installTorch(self, askConfirmation, torchVersionRequirement):
            raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=Logic))
    with pytest.raises(NPCSynthError, match="could not be installed"):
        dependencies._installTorch()


@pytest.mark.parametrize("version, fits", [("2.5.1+cu124", False), ("2.6.0", True), ("2.10.0+cpu", True)])
def test_a_torch_that_is_too_old_is_named(monkeypatch, version, fits):
    monkeypatch.setattr(dependencies.importlib.metadata, "version", lambda name: version)
    if fits:
        dependencies._checkTorch()
    else:
        with pytest.raises(NPCSynthError, match=re.escape(version)):
            dependencies._checkTorch()
