"""slicer.packaging: says what it was asked to install and installs nothing.

Imitates Slicer/Slicer, Base/Python/slicer/packaging.py (5.12): load_requirements wholly; pip_ensure is not run, as in
Slicer when it is in testing mode.
"""

from pathlib import Path

requested = []


def load_requirements(path):
    """Lines of a requirements file as Requirement objects."""
    from packaging.requirements import Requirement

    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_ensure(requirements, constraints=None, requester=None):
    """Record the request, with the text of the constraints file."""
    requested.append((list(requirements), Path(constraints).read_text(encoding="utf-8"), requester))
