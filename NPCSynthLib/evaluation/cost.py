"""Section 9 of the proof: what a patient costs, beside the seed method's backbone doing the same job.

Two sources to three targets with uncertainty and segmentation, on a share of the slices and extrapolated: time,
memory, arithmetic, and how much of what the machine can do is put to use. Machines are shared and slow down, so the
methods take turns and what counts are the ratios within a turn. What the images show is of no consequence.
"""

import ctypes
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..inference.device import Device
from ..inference.slicing import CONTOUR_PIXEL_MM, PIXEL_MM, Slicing
from ..inference.synthesizer import Synthesizer
from ..model.network import AnyToAll
from ..study.study import Source, Study
from ..study.volume import Grid, Volume
from ..training.baseline_networks import LabelSwinUNETR
from .section import Context, Section, Table

_SOURCES, _TARGETS = ("T1", "T2"), ("T1C", "T2FS", "FLAIR")
#: (k, j, i) and mm along (i, j, k): a clinical stack of thick slices, and an isotropic volume.
VOLUMES = (((40, 512, 512), (0.45, 0.45, 4.4)), ((180, 256, 256), (1.0, 1.0, 1.0)))
#: What the design asks for.
_FASTER = 5.0
_MATRIX = 2048


@dataclasses.dataclass(frozen=True)
class Turn:
    """One repetition: seconds for the share of slices, and what the machine did at that time.

    ``flops`` is the rate of a large matrix product in the precision of inference (1/s).
    """

    ours: float
    baseline: float
    flops: float


def share_of(shape, spacing, slices: int) -> Study:
    """A study of that many slices of the volume, of random content."""
    rng = np.random.default_rng(0)
    grid = Grid.from_parts((slices, *shape[1:]), spacing, (0, 0, 0), np.eye(3))
    body = np.zeros(grid.shape, bool)
    body[:, shape[1] // 8 : -shape[1] // 8, shape[2] // 8 : -shape[2] // 8] = True
    sources = []
    for sequence in _SOURCES:
        array = rng.random(grid.shape, dtype=np.float32) * body
        sources.append(Source(sequence, Volume(array, grid), array, np.ones(grid.shape, bool), {}, (0.0, 1.0)))
    return Study(grid, _SOURCES[0], tuple(sources), body)


def baseline_job(module: LabelSwinUNETR, device: Device, study: Study) -> None:
    """All targets of the study by the baseline: one pass for each source and target, averaged over the sources."""
    slicing = Slicing.plan(study.grid, module.stride)
    count = slicing.shape[0]
    around = slicing.around(range(count))
    stack = np.stack([slicing.take(s.array)[around] for s in study.sources], axis=1)
    images = slicing.to_work(torch.from_numpy(stack).to(device.torch).flatten(0, 1)).unflatten(0, (count, -1))
    numbers = torch.arange(len(study.sources), device=device.torch).expand(count, -1)
    present = torch.ones_like(numbers, dtype=torch.bool)
    with torch.inference_mode(), device.autocast():
        for target in range(len(_TARGETS)):
            for one in range(count):  # a slice at a time: as fast as several, and the memory stays low
                row = slice(one, one + 1)
                made = module.synthesize(images[row], present[row], numbers[row],
                                         torch.tensor([target], device=device.torch))
                slicing.from_work(made[:, None]).cpu()


def _features(model: AnyToAll, slicing: Slicing, device: torch.device):
    """Of one slice of random content in all sources."""
    return model.group(model.encode(torch.rand(len(_SOURCES), 3, *slicing.padded, device=device)).invariant, 1)


def flops_of_slice(synthesizer: Synthesizer, baseline: LabelSwinUNETR, grid: Grid) -> tuple[int, int]:
    """Floating-point operations for one slice with all its sources and targets: (ours, the baseline's).

    Convolutions and matrix products as PyTorch counts them, two for each multiply-add.
    """
    model, device = synthesizer.loaded.model, synthesizer.device.torch
    text, _ = synthesizer.loaded.text_features(synthesizer.loaded.manifest["prompts"][synthesizer.sequences[0]])
    present = torch.ones(1, len(_SOURCES), dtype=torch.bool, device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as ours:
        contouring, slicing = (Slicing.plan(grid, model.config.stride, mm) for mm in (CONTOUR_PIXEL_MM, PIXEL_MM[0]))
        invariant = _features(model, contouring, device)
        model.segment(invariant, present)
        if contouring != slicing:
            invariant = _features(model, slicing, device)
        for _ in _TARGETS:
            model.decode(invariant, present, text.to(device))
    height, width = Slicing.plan(grid, baseline.stride).padded
    numbers = torch.arange(len(_SOURCES), device=device)[None]
    with torch.inference_mode(), FlopCounterMode(display=False) as theirs:
        baseline.synthesize(torch.rand(1, len(_SOURCES), 3, height, width, device=device), present, numbers,
                            torch.zeros(1, dtype=torch.long, device=device))
    return ours.get_total_flops(), theirs.get_total_flops() * len(_TARGETS)


def matrix_rate(device: Device) -> float:
    """Operations a second of a large matrix product in the precision of inference."""
    a, b = (torch.rand(_MATRIX, _MATRIX, device=device.torch, dtype=device.dtype) for _ in range(2))
    with torch.inference_mode():
        a[:64] @ b  # libraries prepare themselves at the first call
        seconds = _timed(lambda: a @ b, device)
    return 2 * _MATRIX**3 / seconds


def _timed(call: Callable[[], object], device: Device) -> float:
    if device.torch.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if device.torch.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_bytes(call: Callable[[], object], device: Device) -> int | None:
    """Memory that ``call`` takes beyond what was taken before it, at its highest; None where nobody keeps count.

    On a CPU the kernel does, on Linux: "5" in clear_refs sets the highest resident set back to the present one
    (Linux, Documentation/filesystems/proc.rst). Looking now and then would miss what is given back at once.
    """
    if device.torch.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        _give_back()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        call()
        return None
    before = _highest_resident()
    call()
    return _highest_resident() - before


def _give_back() -> None:
    """What was freed goes back to the system, where the C library can: the call would take it unseen otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


def _highest_resident() -> int:
    """Bytes, since they were last set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def volume_bytes(shape) -> int:
    """Arrays of the whole volume that are held whatever the batch: sources, results and classes."""
    voxel = len(_SOURCES) * (4 + 1) + len(_TARGETS) * (2 + 2) + 1
    return int(np.prod(shape)) * voxel


def take_turns(synthesizer: Synthesizer, baseline: LabelSwinUNETR, study: Study, turns: int) -> list[Turn]:
    """Ours, the baseline and the machine's own rate, one after the other, so many times."""
    device = synthesizer.device
    found = []
    for _ in range(turns):
        ours = synthesizer.run(study, list(_TARGETS), segment=True).seconds["synthesis"]
        theirs = _timed(lambda: baseline_job(baseline, device, study), device)
        found.append(Turn(ours, theirs, matrix_rate(device)))
    return found


def parameters_of(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def run(context: Context) -> Section:
    """Time, memory, operations and parameters for both kinds of volume."""
    synthesizer = context.synthesizer
    device = synthesizer.device
    torch.manual_seed(0)
    baseline = LabelSwinUNETR().to(device.torch).eval().requires_grad_(False)
    slices, turns = (1, 3) if context.quick else (4, 5)
    kept = context.kept("cost")
    rows, ratios, shares, rates = [], [], [], []
    for number, (shape, spacing) in enumerate(VOLUMES):
        context.on_progress(number / len(VOLUMES), f"{' x '.join(map(str, shape))}")
        key = {"weights": synthesizer.loaded.identity["sha256"], "shape": shape, "slices": slices, "turns": turns}
        one = kept.get(key, lambda shape=shape, spacing=spacing: measure(
            synthesizer, baseline, shape, spacing, slices, turns))
        taken = [Turn(**turn) for turn in one["turns"]]
        rates += [turn.flops for turn in taken]
        scale = shape[0] / slices
        ratios.append(statistics.median(t.baseline / t.ours for t in taken))
        size = " x ".join(map(str, shape))
        for name, flops, parameters, memory in (
            ("ours", one["flops"][0], parameters_of(synthesizer.loaded.model), one["memory"][0]),
            ("SwinUNETR", one["flops"][1], parameters_of(baseline), one["memory"][1]),
        ):
            seconds = [(t.ours if name == "ours" else t.baseline) for t in taken]
            share = statistics.median(flops * slices / s / t.flops for s, t in zip(seconds, taken, strict=True))
            shares.append(share)
            rows.append((size, name, parameters / 1e6, flops * shape[0] / 1e12,
                         statistics.median(seconds) * scale, min(seconds) * scale, max(seconds) * scale,
                         None if memory is None else (memory + volume_bytes(shape)) / 2**30, share))
        rows.append((size, "SwinUNETR / ours", parameters_of(baseline) / parameters_of(synthesizer.loaded.model),
                     one["flops"][1] / one["flops"][0], ratios[-1], min(t.baseline / t.ours for t in taken),
                     max(t.baseline / t.ours for t in taken), None, None))
    text = (
        f"{len(_SOURCES)} sources to {len(_TARGETS)} targets with uncertainty and segmentation, on {device.label}; the "
        f"baseline is MONAI's SwinUNETR (feature size 48, 2D) in the same precision, which gives images alone.\n\n"
        f"Ours is {min(ratios):.1f} to {max(ratios):.1f} times as fast (the mark is {_FASTER:g}). Of what the machine "
        f"did in a matrix product at the same time it put {min(shares[::2]):.0%} to {max(shares[::2]):.0%} to use, the "
        f"baseline {min(shares[1::2]):.0%} to {max(shares[1::2]):.0%} (that product: "
        f"{statistics.median(rates) / 1e9:.0f} GFLOP/s)."
    )
    table = Table(
        "Cost of one patient", ("volume", "method", "parameters (M)", "TFLOP", "seconds", "least", "most",
                                "peak memory (GiB)", "share of the matrix rate"), tuple(rows),
        f"Measured on {slices} of the slices in {turns} turns and extrapolated; median, least and most. Operations "
        "are those of convolutions and matrix products. Memory: that of the slices measured, and the arrays of the "
        "whole volume; measured on CUDA and on Linux alone.")
    return Section("Cost", text, (table,))


def measure(synthesizer: Synthesizer, baseline: LabelSwinUNETR, shape, spacing, slices: int, turns: int) -> dict:
    """{"turns": [Turn as dict], "flops": [ours, theirs] a slice, "memory": [ours, theirs] in bytes or None}."""
    study, device = share_of(shape, spacing, slices), synthesizer.device
    memory = [peak_bytes(lambda: synthesizer.run(study, list(_TARGETS), segment=True), device),
              peak_bytes(lambda: baseline_job(baseline, device, study), device)]  # the first call also warms up
    taken = take_turns(synthesizer, baseline, study, turns)
    return {"turns": [dataclasses.asdict(t) for t in taken], "memory": memory,
            "flops": list(flops_of_slice(synthesizer, baseline, study.grid))}
