"""Installs the Python packages that Slicer lacks, after asking, and keeps pip away from Slicer's own."""

import functools
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from NPCSynthLib.errors import NPCSynthError
from NPCSynthLib.resources import resource_path

#: PyTorch that NPCSynthLib.inference runs on.
TORCH_REQUIREMENT = ">=2.6"
#: What pip must never replace inside Slicer, whatever another package asks for.
PINNED = ("numpy", "SimpleITK", "pydicom", "highdicom", "vtk", "scipy", "torch", "torchvision")


_installing = threading.Lock()


def _alone(ensure):
    """While pip works, the buttons do too: whatever else needs packages then is refused, lest pip run twice."""

    @functools.wraps(ensure)
    def once():
        others = getattr(getattr(slicer, "packaging", None), "isPipInstallInProgress", lambda: False)
        if others() or not _installing.acquire(blocking=False):
            raise NPCSynthError(_("Python packages are being installed. Wait until that is done, then start again."))
        try:
            ensure()
        finally:
            _installing.release()

    return once


@_alone
def ensureDependencies():
    """Install what is missing after asking; main thread only, and only when a run is about to begin.

    :raises NPCSynthError: the user declined, or something could not be installed, or is being installed.
    """
    _refuseIntelMac()
    _refuseOldSlicer()
    if importlib.util.find_spec("torch") is None:
        _installTorch()
    _checkTorch()
    _ensure("requirements.txt")


@_alone
def ensurePackages():
    """The part of ``ensureDependencies`` that is not PyTorch."""
    _ensure("requirements.txt")


@_alone
def ensurePromptPackages():
    """What prompts in the user's own words need beside ``ensureDependencies``."""
    if importlib.util.find_spec("open_clip") is None:
        _ensure("requirements-prompts.txt")


def _ensure(file):
    """What a file in Resources asks for."""
    requirements = resource_path("Resources", file)
    constraints = _writeConstraints()
    try:
        if importlib.util.find_spec("slicer.packaging") is not None:
            import slicer.packaging

            slicer.packaging.pip_ensure(
                slicer.packaging.load_requirements(requirements), constraints=constraints, requester="NPCSynth"
            )
        else:
            _pipInstall(requirements, constraints)
    except RuntimeError as error:
        raise NPCSynthError(
            _("NPCSynth needs Python packages that are not installed, so it cannot run. Start again and accept.")
        ) from error
    except subprocess.CalledProcessError as error:
        raise NPCSynthError(_(
            "Python packages that NPCSynth needs could not be installed. Check the internet connection and the "
            "free disk space, then run again; the application log says more."
        )) from error
    finally:
        constraints.unlink()


def missingPackages():
    """Names of the packages that ``ensureDependencies`` would install."""
    torch = ["torch"] if importlib.util.find_spec("torch") is None else []
    return torch + [requirement.name for requirement in _missing(resource_path("Resources", "requirements.txt"))]


def _refuseOldSlicer():
    """Its pydicom cannot be replaced, and is too old for what NPCSynth reads and writes."""
    if importlib.util.find_spec("highdicom") is None:
        text = _("NPCSynth needs Slicer 5.12 or newer; this is {version}. Install a newer Slicer beside it.")
        raise NPCSynthError(text.format(version=slicer.app.applicationVersion))


def _refuseIntelMac():
    """Slicer for macOS is an Intel program, on Apple's own processors too; PyTorch for those ended with version 2.2."""
    if (sys.platform, platform.machine()) == ("darwin", "x86_64"):
        raise NPCSynthError(
            _(
                "NPCSynth needs PyTorch {requirement}, which there is not for this Slicer on macOS. Use Slicer on "
                "Windows or Linux, or the command line “npcsynth” with Python for Apple's processors."
            ).format(requirement=TORCH_REQUIREMENT)
        )


def _installTorch():
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise NPCSynthError(_(
            "NPCSynth needs PyTorch. Install the extension “PyTorch” in the Extensions Manager, restart "
            "Slicer and run again."
        )) from error
    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
        )
    except subprocess.CalledProcessError as error:
        raise NPCSynthError(_(
            "PyTorch could not be installed. Check the internet connection and the free disk space, then run "
            "again; the application log says more."
        )) from error
    if torch is None:
        raise NPCSynthError(_("NPCSynth needs PyTorch, and it was not installed. Start again and accept."))
    importlib.invalidate_caches()


def _checkTorch():
    """Another extension may have installed a PyTorch that is too old."""
    from packaging.specifiers import SpecifierSet

    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return
    if not SpecifierSet(TORCH_REQUIREMENT).contains(version, prereleases=True):
        raise NPCSynthError(
            _(
                "NPCSynth needs PyTorch {requirement}, and version {version} is installed. Uninstall it in the "
                "module “PyTorch Utils”, restart Slicer and run again."
            ).format(requirement=TORCH_REQUIREMENT, version=version)
        )


def _writeConstraints():
    """A pip constraints file that holds Slicer's own packages at the versions it has."""
    lines = []
    for name in PINNED:
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}\n")
        except importlib.metadata.PackageNotFoundError:
            continue
    handle, path = tempfile.mkstemp(prefix="npcsynth-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return Path(path)


def _pipInstall(requirements, constraints):
    """For Slicer before 5.12, which has no slicer.packaging."""
    missing = [str(requirement) for requirement in _missing(requirements)]
    if not missing:
        return
    question = _("NPCSynth needs to install: {packages}. Continue?").format(packages=", ".join(missing))
    if not slicer.util.confirmOkCancelDisplay(question, windowTitle="NPCSynth"):
        raise RuntimeError("declined")
    slicer.util.pip_install(["--constraint", str(constraints), *missing])


def _missing(requirements):
    """The packaging.requirements.Requirement in a file that are not met."""
    from packaging.requirements import Requirement

    lines = [line.strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    return [one for one in map(Requirement, (line for line in lines if line and line[0] != "#")) if not _isMet(one)]


def _isMet(requirement):
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False
