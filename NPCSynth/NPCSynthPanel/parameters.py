"""What the user chose, saved with the scene."""

from typing import Annotated

from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper

#: What the user can choose -> NPCSynthLib.inference.device.choose_device's name for it.
DEVICES = {"Automatic": None, "GPU": "gpu", "CPU": "cpu"}


@parameterNodeWrapper
class NPCSynthParameterNode:
    """What the user chose, saved with the scene. The volumes are node references "Source.<sequence>" beside these.

    segment - Whether to segment tumor and organs at risk too.
    device - Where to compute.
    reference - Sequence whose grid the results get; empty for automatic.
    skipped - Missing sequences that are not wanted.
    """

    segment: bool = True
    device: Annotated[str, Choice(list(DEVICES))] = "Automatic"
    reference: str = ""
    skipped: list[str] = []
