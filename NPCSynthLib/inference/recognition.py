"""Which sequence an image looks like, by CLIP's way: the image's vector beside those of the sequences' prompts.

The header is not asked. It is a second opinion: a file that was exported under a wrong name, or a series whose header
says nothing, shows here.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..model.weights import LoadedModel
from ..study.normalize import body_mask
from ..study.study import Source, Study
from ..vocabulary import get_sequence
from .device import Device
from .slicing import Slicing

_SLICES = 12
#: Slices with less body than this share of the largest one say little.
_LEAST_BODY = 0.3
#: An image contradicts its name when the weighting that it is said to have is less probable than this ...
_DOUBT = 0.05
#: ... and another one more probable than that. Contrast agent and fat suppression are too hard to see to be judged.
_SURE = 0.6
#: Entry of the manifest: an image whose weighting is less probable than this looks like nothing that was learnt.
LEAST_CONFIDENCE = "least_confidence"


@dataclass(frozen=True)
class Recognition:
    """What one image looks like.

    Attributes:
        probabilities: sequence id -> 0..1, over the sequences that the weights know; they add up to 1.
        least: confidence of an image that looks like one of them; 0 when the weights were not asked what is usual.
    """

    probabilities: dict[str, float]
    least: float = 0.0

    @property
    def sequence(self) -> str:
        """The most probable sequence id."""
        return max(self.probabilities, key=self.probabilities.get)

    @property
    def confidence(self) -> float:
        """Probability of the weighting (T1, T2, PD, or inversion recovery) that ``sequence`` has, 0..1."""
        return self._weightings()[weighting(self.sequence)]

    @property
    def known(self) -> bool:
        """False when the image looks like no sequence that was learnt."""
        return self.confidence >= self.least

    def contradiction(self, said: str) -> str | None:
        """A sentence for the user when the image does not look like the sequence that it is ``said`` to be."""
        if said not in self.probabilities:
            return None
        weightings = self._weightings()
        seen = max(weightings, key=weightings.get)
        if weightings[weighting(said)] < _DOUBT and weightings[seen] >= _SURE:
            likeliest = max((s for s in self.probabilities if weighting(s) == seen), key=self.probabilities.get)
            return (
                f"The image given as {said} looks like {likeliest} ({weightings[seen]:.0%} sure of its weighting). "
                "Check that it is assigned to the right sequence."
            )
        if not self.known:
            return (
                f"The image given as {said} looks like no sequence that the network knows. Check that it is {said}, "
                "and a plain magnitude image."
            )
        return None

    def agrees(self, said: str) -> bool:
        """Whether the weighting that is most probable is that of the sequence that it is ``said`` to be."""
        weightings = self._weightings()
        return max(weightings, key=weightings.get) == weighting(said)

    def _weightings(self) -> dict[tuple[str, bool], float]:
        total: dict[tuple[str, bool], float] = {}
        for sequence, probability in self.probabilities.items():
            total[weighting(sequence)] = total.get(weighting(sequence), 0.0) + probability
        return total


def weighting(sequence: str) -> tuple[str, bool]:
    """What anyone sees at a glance: T1, T2, PD, or with the fluid nulled."""
    one = get_sequence(sequence)
    return one.weighting, one.inversion_recovery


def recognize(loaded: LoadedModel, device: Device, study: Study, source: Source) -> Recognition:
    """Compare some slices of one source with the prompts of every sequence that the weights know."""
    return nearest_prompts(loaded, slice_embeddings(loaded, device, study, source).mean(dim=0))


@torch.inference_mode()
def nearest_prompts(loaded: LoadedModel, vector: torch.Tensor) -> Recognition:
    """What an image with that (W,) vector, of any length, looks like."""
    ids = list(loaded.manifest["prompts"])
    prompts = [loaded.text_features(loaded.manifest["prompts"][i])[0].pooled for i in ids]
    texts = loaded.model.text_embedding(torch.cat(prompts).to(vector.device))
    logits = texts @ F.normalize(vector, dim=0) * loaded.model.logit_scale.exp().clamp(max=100)
    probabilities = dict(zip(ids, logits.softmax(dim=0).tolist(), strict=True))
    return Recognition(probabilities, loaded.manifest.get(LEAST_CONFIDENCE, 0.0))


@torch.inference_mode()
def slice_embeddings(loaded: LoadedModel, device: Device, study: Study, source: Source) -> torch.Tensor:
    """(N, W) float32 unit vectors of some slices of one source, spread over the body."""
    model = loaded.model
    slicing = Slicing.plan(study.grid, model.config.stride)
    body = body_mask(source.array, study.grid.spacing) & source.inside
    image, body = slicing.take(source.array), slicing.take(body)
    area = body.sum(axis=(1, 2))
    rows = np.nonzero(area >= max(1.0, _LEAST_BODY * area.max()))[0]
    if not len(rows):
        rows = np.array([len(area) // 2])
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, _SLICES).round().astype(int))]
    images = torch.from_numpy(image[slicing.around(rows)]).to(device.torch).clamp_(0, 2)
    images = slicing.to_work(images).contiguous(memory_format=torch.channels_last)
    inside = torch.from_numpy(body[rows][:, None].astype(np.float32)).to(device.torch)
    inside = slicing.to_work(inside, "nearest")
    with device.autocast():
        return model.image_embedding(model.encode(images).specific, inside).float()
