"""Where the data files that ship with NPCSynth lie: ``Resources/`` and ``weights/``.

They lie inside the package in Slicer and in a wheel, where nobody else's files are, and beside it in a source checkout.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_path(*parts: str) -> Path:
    """Path of a shipped file, e.g. ``resource_path("Resources", "sequences.json")``.

    Raises FileNotFoundError when the installation lacks it.
    """
    for home in (_PACKAGE, _PACKAGE.parent):
        path = home.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"{'/'.join(parts)} is missing from this installation of NPCSynth; install it again.")
