"""Which device computes, in which precision, and how many slices fit at once."""

import math
from dataclasses import dataclass

import psutil
import torch

from ..errors import UsageError
from ..model.network import AnyToAll, ModelConfig, TextFeatures

#: Largest relative error of the test computation in reduced precision (bfloat16 keeps 8 bits).
KERNEL_TOLERANCE = 0.1

_MARGIN = 0.6  # share of the free memory that a batch may take


@dataclass(frozen=True)
class Device:
    """Where and how to compute: ``torch`` device, ``dtype`` under autocast, and ``label`` in words."""

    torch: torch.device
    dtype: torch.dtype
    label: str

    def autocast(self) -> torch.autocast:
        """Context in which networks compute in ``dtype``."""
        return torch.autocast(self.torch.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def kernel_error(device: Device) -> float:
    """Largest error of a small network on the device, relative to the same in full precision on the CPU.

    A driver that is too old, or a device that computes wrongly, shows here and not in mid-run. Infinite when it fails.
    """
    config = ModelConfig(channels=(8, 8), specific=(2, 2), encoder_blocks=1, decoder_blocks=1, text_width=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AnyToAll(config).eval()
        images = torch.rand(2, 3, 16, 16)
        text = TextFeatures(torch.rand(1, 16), torch.rand(1, 3, 16), torch.ones(1, 3, dtype=torch.bool))

    @torch.inference_mode()
    def compute(where: Device) -> torch.Tensor:
        model.to(where.torch)
        with where.autocast():
            invariant = model.group(model.encode(images.to(where.torch)).invariant, 1)
            present = torch.ones(1, 2, dtype=torch.bool, device=where.torch)
            mean, _ = model.decode(invariant, present, text.to(where.torch))
        return mean.float().cpu()

    expected = compute(Device(torch.device("cpu"), torch.float32, "CPU, float32"))
    try:
        found = compute(device)
    except Exception:  # whatever the driver raises: this device is not usable
        return math.inf
    error = float((found - expected).abs().max() / expected.abs().max())
    return error if math.isfinite(error) else math.inf


def _cpu() -> Device:
    threads = torch.get_num_threads()
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()
    dtype = torch.bfloat16 if fast else torch.float32
    name = "bfloat16" if fast else "float32"
    return Device(torch.device("cpu"), dtype, f"CPU, {threads} thread{'s' * (threads != 1)}, {name}")


def choose_device(wanted: str | None = None) -> tuple[Device, list[str]]:
    """The best device that works, and sentences on what was passed over.

    Args:
        wanted: None or "auto" (CUDA, then Apple MPS, then CPU), "gpu" (CUDA or MPS), "cuda", "mps", "cpu".

    Raises:
        UsageError: ``wanted`` is no such name.
    """
    wanted = (wanted or "auto").lower()
    if wanted not in ("auto", "gpu", "cuda", "mps", "cpu"):
        raise UsageError(f'"{wanted}" is not a device. Use auto, gpu, cuda, mps or cpu.')
    notes = []
    if wanted in ("auto", "gpu", "cuda"):
        if torch.cuda.is_available():
            device = torch.device("cuda")
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
            gpu = Device(device, dtype, f"{torch.cuda.get_device_name()}, {str(dtype)[6:]}")
            if kernel_error(gpu) <= KERNEL_TOLERANCE:
                return gpu, notes
            notes.append("The GPU failed its test, so the CPU is used. Update the graphics driver to use the GPU.")
        elif wanted == "cuda":
            notes.append("There is no usable NVIDIA GPU here, so the CPU is used.")
    if wanted in ("auto", "gpu", "mps"):
        apple = Device(torch.device("mps"), torch.float32, "Apple GPU, float32")
        if torch.backends.mps.is_available() and kernel_error(apple) <= KERNEL_TOLERANCE:
            return apple, notes
        if wanted == "mps":
            notes.append("There is no usable Apple GPU here, so the CPU is used.")
    if wanted == "gpu" and not notes:
        notes.append("There is no usable GPU here, so the CPU is used.")
    return _cpu(), notes


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory; Apple's says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def free_memory(device: Device) -> int:
    """Bytes that a run may still take on the device."""
    if device.torch.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def slice_bytes(config: ModelConfig, sources: int, height: int, width: int, dtype: torch.dtype) -> int:
    """Estimate of the peak memory of one slice: features of all sources, plus the decoder's largest maps.

    Counted from the maps alive at the finest level (about 6 of the decoder and 3 of each source), with the
    coarser levels adding their geometric share; a factor of two covers what libraries use as workspace.
    """
    item = 4 if dtype == torch.float32 else 2
    finest = config.channels[0] * height * width // 4 * item
    return int(2 * 1.6 * finest * (6 + 3 * sources)) + 64 * height * width


def plan_batch(device: Device, config: ModelConfig, sources: int, height: int, width: int, slices: int) -> int:
    """Slices a batch: as many as fit, at least one; on a CPU few, since more gain nothing there."""
    fits = int(_MARGIN * free_memory(device) // slice_bytes(config, sources, height, width, device.dtype))
    most = 4 if device.torch.type == "cpu" else 32
    return max(1, min(fits, most, slices))
