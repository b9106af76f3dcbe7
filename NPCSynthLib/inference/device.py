"""Which device computes, in which precision, and how many slices fit at once."""

from dataclasses import dataclass

import psutil
import torch

from ..errors import UsageError
from ..model.network import AnyToAll, ModelConfig

_MARGIN = 0.6  # share of the free memory that a batch may take


@dataclass(frozen=True)
class Device:
    """Where and how to compute: ``torch`` device, ``dtype`` under autocast, and ``label`` in words."""

    torch: torch.device
    dtype: torch.dtype
    label: str


def _kernel_works(device: torch.device, dtype: torch.dtype) -> bool:
    """A real convolution and attention on the device: a driver that is too old shows here, not in mid-run."""
    try:
        model = AnyToAll(ModelConfig(channels=(8, 8), specific=(2, 2), encoder_blocks=1, decoder_blocks=1)).to(device)
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            encoding = model.encode(torch.rand(1, 3, 16, 16, device=device))
        return bool(torch.isfinite(encoding.invariant[-1].float()).all())
    except Exception:  # whatever the driver raises: this device is not usable
        return False


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
            if _kernel_works(device, dtype):
                return Device(device, dtype, f"{torch.cuda.get_device_name()}, {str(dtype)[6:]}"), notes
            notes.append("The GPU failed its test, so the CPU is used. Update the graphics driver to use the GPU.")
        elif wanted == "cuda":
            notes.append("There is no usable NVIDIA GPU here, so the CPU is used.")
    if wanted in ("auto", "gpu", "mps"):
        if torch.backends.mps.is_available() and _kernel_works(torch.device("mps"), torch.float32):
            return Device(torch.device("mps"), torch.float32, "Apple GPU, float32"), notes
        if wanted == "mps":
            notes.append("There is no usable Apple GPU here, so the CPU is used.")
    if wanted == "gpu" and not notes:
        notes.append("There is no usable GPU here, so the CPU is used.")
    return _cpu(), notes


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
