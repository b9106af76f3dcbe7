"""Where the data files that ship with NPCSynth lie: ``Resources/`` and ``weights/``.

They lie beside the package in a source checkout and in Slicer, and inside it in a wheel.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_path(*parts: str) -> Path:
    """Path of a shipped file, e.g. ``resource_path("Resources", "sequences.json")``.

    Raises FileNotFoundError when the installation lacks it.
    """
    for home in (_PACKAGE.parent, _PACKAGE):
        path = home.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"{'/'.join(parts)} is missing from this installation of NPCSynth; install it again.")
