"""slicer.packaging: says what it was asked for, asks as Slicer does, and installs nothing.

Imitates Slicer/Slicer, Base/Python/slicer/packaging.py (5.12): load_requirements wholly; pip_ensure in its order (what
is missing, testing mode, the question, pip) and in what it raises; pip itself ends as ``standInPipFails`` says. Left
out: extras, progress, what pip says, and the advice to restart.
"""

import importlib.metadata
import logging
from pathlib import Path
from subprocess import CalledProcessError

import slicer
from packaging.requirements import Requirement

#: Of every call of pip_ensure: requirements, text of the constraints file, requester.
requested = []
#: Of every call of pip: what it was to install, text of the constraints file.
installed = []
#: Whether pip ends with an error, as without a network.
standInPipFails = False


def load_requirements(path):
    """Lines of a requirements file as Requirement objects."""
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_check(req):
    """Whether one requirement is met."""
    if req.marker is not None and not req.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(req.name) in req.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(requirements, constraints=None, requester=None):
    """Record the request; "install" what is missing, after asking. Raises RuntimeError, CalledProcessError."""
    requested.append((list(requirements), Path(constraints).read_text(encoding="utf-8"), requester))
    missing = [req for req in requirements if not pip_check(req)]
    if not missing:
        return
    if slicer.app.testingEnabled():
        logging.info(f"Testing mode is enabled: skipping pip_ensure for {missing}")
        return
    message = f"{len(missing)} Python packages need to be installed. Continue?"
    title = f"{requester} - Install Python Packages"
    if not slicer.util.confirmOkCancelDisplay(message, title, detailedText="\n".join(f"- {req}" for req in missing)):
        raise RuntimeError("User declined package installation")
    pip_install([str(req) for req in missing], constraints)


def pip_install(requirements, constraints):
    """Record what pip is to install. Raises CalledProcessError where ``standInPipFails``."""
    installed.append((requirements, Path(constraints).read_text(encoding="utf-8")))
    if standInPipFails:
        raise CalledProcessError(1, ["pip", "install", *requirements])
