"""``npcsynth doctor``: does everything that NPCSynth needs work on this computer?"""

import importlib
import importlib.metadata
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from .console import UNEXPECTED, command, print_json
from .options import AsJson, Device, Weights

NAME = "doctor"

#: Name of each package -> what is imported of it.
_NEEDED = {
    "torch": "torch", "numpy": "numpy", "scipy": "scipy", "scikit-image": "skimage", "SimpleITK": "SimpleITK",
    "pydicom": "pydicom", "safetensors": "safetensors", "slicerio": "slicerio", "matplotlib": "matplotlib",
    "highdicom": "highdicom", "dicom-anonymizer": "dicomanonymizer", "contourpy": "contourpy", "monai": "monai",
    "psutil": "psutil",
}  # fmt: skip
_OPTIONAL = {
    "open_clip_torch": "only needed for prompts in your own words and for training",
    "torchvision": "only needed together with open_clip_torch",
    "slicer-core": "only needed to write scene.mrb outside 3D Slicer",
    "lightning-fabric": "only needed for training",
}
_DISK_NEEDED_GB = 2


@dataclass(frozen=True)
class Check:
    """One finding. ``ok`` is False only where NPCSynth cannot work; ``remedy`` then says what to do."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


@command
def run(device: Device = None, weights: Weights = None, json: AsJson = False) -> None:
    """Check Python, packages, device, weights and disk; exit code 5 when something needed does not work.

    [bold]Examples[/]

    [cyan]npcsynth doctor[/]

    [cyan]npcsynth doctor --device cuda --json[/]
    """
    checks = [_python(), *_packages(), _device(device), _weights(weights), _disk()]
    healthy = all(check.ok for check in checks)
    if json:
        print_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        _print_table(checks)
    if not healthy:
        sys.exit(UNEXPECTED)


def _python() -> Check:
    version = platform.python_version()
    return Check("Python", (3, 10) <= sys.version_info < (3, 14), f"{version}, {platform.platform()}",
                 "Install NPCSynth with Python 3.10 to 3.13.")


def _packages() -> list[Check]:
    checks = []
    for name, module in _NEEDED.items():
        try:
            importlib.import_module(module)
            found, works = _version(name) or "there", True
        except ModuleNotFoundError as error:
            found, works = "missing" if error.name == module else f"lacks {error.name}", False
        except Exception as error:  # such as a library of the system that it cannot load
            found, works = f"cannot be loaded: {error}", False
        checks.append(Check(name, works, found, f"Install it (again): pip install --force-reinstall {name}"))
    for name, use in _OPTIONAL.items():
        checks.append(Check(name, True, _version(name) or f"not installed, {use}"))
    return checks


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(wanted: str | None) -> Check:
    """A test computation on the device: one that computes wrongly shows here, not in a result."""
    try:
        from ..inference.device import KERNEL_TOLERANCE, choose_device, kernel_error
    except (ImportError, OSError) as error:
        return Check("Device", False, f"not tested: {error}", "Install PyTorch again; see above.")
    device, notes = choose_device(wanted)
    error = kernel_error(device)
    said = " ".join([f"{device.label}; a test computation differs by {error:.0e} from the CPU's.", *notes])
    return Check("Device", error <= KERNEL_TOLERANCE, said, "The device computes wrongly: choose --device cpu.")


def _weights(path: Path | None) -> Check:
    from ..errors import NPCSynthError

    try:
        from ..model.manifest import verify
        from ..model.weights import load_weights

        verify(path)
        load_weights(path)
    except NPCSynthError as error:
        return Check("Weights", False, str(error), "Install NPCSynth again, or name intact weights with --weights.")
    except (ImportError, OSError) as error:
        return Check("Weights", False, f"not verified: {error}", "Install the package that is missing or broken.")
    return Check("Weights", True, f"verified: {path or 'those that ship with NPCSynth'}")


def _disk() -> Check:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    return Check("Disk for temporary files", free >= _DISK_NEEDED_GB, f"{free:.1f} GB free",
                 f"Free some space: {_DISK_NEEDED_GB} GB are needed.")


def _print_table(checks) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "What", "Found", "Remedy")
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]no[/]", check.name, escape(check.found),
                      "" if check.ok else escape(check.remedy))
    Console().print(table)
