"""What a training run is made of, read from a file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..errors import UsageError
from ..model.network import AnyToAll, ModelConfig
from ..model.text import TextTower
from ..phantom.signal import ANY_ECHO
from ..vocabulary import load_classes, load_sequences
from .baseline_networks import NETWORKS
from .dataset import Mixture
from .objectives import LEARNS, WEIGHTS, LabelTower, TrainingModule

#: Ours, ours told of sequences by number instead of text, and the baselines.
_OURS = ("any-to-all", "any-to-all-labels")


@dataclass(frozen=True)
class TrainingConfig:
    """One training run; see ``small.json`` and ``base.json`` beside this file for what the values mean in practice.

    Attributes:
        model: None for that of the weights which the run starts from.
        network: "any-to-all", "any-to-all-labels" or one of ``baseline_networks.NETWORKS``.
        text_rate: of "any-to-all", the text tower's share of the learning rate. At the full rate the decoder has to
            follow words that move, and learns more slowly.
        losses: weights of losses that differ from ``objectives.WEIGHTS``.
        learns: "everything", or what of finished weights learns while all else stays as it is: "segmentation" (the
            head) or "words" (a text tower anew, see ``wordings``).
    """

    model: ModelConfig | None
    steps: int
    batch_size: int
    size: int
    text_steps: int
    warmup_steps: int
    learning_rate: float
    weight_decay: float
    ema: float
    phantoms: int
    seed: int
    network: str = "any-to-all"
    text_rate: float = 1.0
    mixture: Mixture = Mixture()
    losses: dict = field(default_factory=dict)
    learns: str = "everything"

    @classmethod
    def load(cls, name: str) -> "TrainingConfig":
        """Read a configuration that ships ("small", "base", …) or the path of a JSON file.

        A file may name another one as "like" and give only what differs. Raises UsageError when it cannot be read.
        """
        try:
            values = _read_values(name)
            model = values.pop("model")
            model = model and ModelConfig.from_dict({**model, "classes": list(load_classes())})
            mixture = values.pop("mixture", {})
            mixture = Mixture(**{**mixture, "without": tuple(mixture.get("without", ()))})
            config = cls(model=model, mixture=mixture, **values)
            if config.network not in (*_OURS, *NETWORKS):
                raise ValueError(f"network {config.network} is unknown")
            config._check()
            if config.learns not in LEARNS:
                raise ValueError(f"{config.learns} is nothing that learns: {', '.join(LEARNS)} do")
            unfit = config.network != "any-to-all" or model is not None or set(ANY_ECHO) <= set(config.mixture.without)
            if config.learns == "words" and unfit:
                raise ValueError("words are learned for finished any-to-all weights that know T2")
            return config
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _unreadable(name, error) from error

    def _check(self) -> None:
        for name in ("steps", "batch_size", "size"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f'"{name}" is a whole number above 0')
        for name in ("text_steps", "warmup_steps", "phantoms", "seed"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f'"{name}" is a whole number, 0 or above')
        if unknown := sorted({*self.losses} - {*WEIGHTS}):
            raise ValueError(f"there is no loss {', '.join(unknown)}, but {', '.join(WEIGHTS)}")
        if unknown := sorted({*self.mixture.without} - {*load_sequences()}):
            raise ValueError(f"there is no sequence {', '.join(unknown)} to do without")
        if self.network in NETWORKS:
            stride = NETWORKS[self.network].stride
        else:
            stride = self.model.stride if self.model else 1
        if self.size % stride:
            raise ValueError(f'"size" is a multiple of {stride}')

    def text(self) -> str:
        """All values, by which a checkpoint knows its run."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def stages(name: str) -> list[str]:
        """Names of the configurations that one consists of, each going on from the weights of the one before.

        That is most often its own alone. Raises UsageError when it cannot be read.
        """
        try:
            stages = _read_values(name).get("stages", [name])
            if not (isinstance(stages, list) and stages and all(isinstance(stage, str) for stage in stages)):
                raise ValueError('"stages" is a list of configurations')
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(name, error) from error
        return stages


def _unreadable(name: str, error: Exception) -> UsageError:
    return UsageError(
        f'"{name}" is not a training configuration ({error}). Use one of those that npcsynth train --help names, or '
        "the path of a JSON file with the same fields."
    )


def _read_values(name: str, seen: tuple[str, ...] = ()) -> dict:
    if name in seen:
        raise ValueError(f'"like" leads back to {name}')
    path = Path(__file__).parent / f"{name}.json"
    if not path.exists():
        path = Path(name)
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it holds no fields")
    values.pop("about", None)
    like = values.pop("like", None)
    return values if like is None else {**_read_values(like, (*seen, name)), **values}


def build_module(config: TrainingConfig, tokens: list[int]) -> torch.nn.Module:
    """A fresh network with what its training needs, seeded."""
    torch.manual_seed(config.seed)
    if config.network in NETWORKS:
        return NETWORKS[config.network](config.losses)
    model = AnyToAll(config.model)
    if config.network == "any-to-all-labels":
        text = LabelTower(config.model)
    else:
        text = TextTower(config.model, tokens)
    return TrainingModule(model, text, losses=config.losses, learns=config.learns)
