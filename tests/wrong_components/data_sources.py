"""Wrong data sources, each made from a right one: 600 vectors, the last 100 of them held out."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core import ComponentConfig, ComponentSpec, option
from qsae_core.conformance import Case
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.held_out_part import HeldOutPart, Overlap


class FileConfig(ComponentConfig):
    """A file of vectors."""

    path: str = option(description="where the vectors are")


class RightPart(HeldOutPart):
    """The last vectors of the file."""

    def __init__(self, source: RightSource) -> None:
        self.source = source

    def record(self) -> dict[str, Any]:
        return {"sum": float(self.source.vectors.sum())}

    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        return Overlap.TRAINING if record == self.record() else Overlap.NONE

    def take_all(self) -> None:
        self.source.first_held_out = 0

    def name(self) -> str:
        return "vectors of a file"

    def size(self) -> int | None:
        return len(self.source.vectors) - self.source.first_held_out


class RightSource(DataSource):
    """Vectors of a file, in an order that seed and pass determine."""

    d_in = d_out = 4
    model_name, layer = "file", "0"
    TRAINING = 500

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        path = folder / "vectors.pt"
        torch.save(torch.randn(600, 4, generator=torch.Generator().manual_seed(0)), path)
        return [Case({"path": str(path)})]

    def __init__(self, config: FileConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        self.vectors = torch.load(config.path, weights_only=True)
        self.position = 0
        self.first_held_out = self.TRAINING

    def next_batch(self, size: int) -> Batch:
        indices = [self.row(self.position + i) for i in range(size)]
        self.position += size
        x = self.vectors[indices]
        return Batch(x, x)

    def row(self, position: int) -> int:
        at, place = divmod(position, self.TRAINING)
        return int(self.order(at)[place])

    def order(self, at: int) -> Tensor:
        return torch.randperm(self.TRAINING, generator=torch.Generator().manual_seed(1000 * self.seed + at))

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for x in self.vectors[self.first_held_out :][:n_tokens].split(batch_size):
            yield Batch(x, x)

    def held_out_part(self) -> HeldOutPart | None:
        return RightPart(self)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]

    @property
    def training_tokens(self) -> int | None:
        return self.TRAINING


class FailsToClose(RightSource):
    """Cannot release what it holds, right after it was made."""

    def __init__(self, config: FileConfig, *, seed: int = 0, device: str = "cpu") -> None:
        if device == "cpu":
            raise OSError("no device")


class NaNInRecord(RightSource):
    """Describes itself with a value that is no JSON."""

    def describe(self) -> dict[str, Any]:
        return {"mean": float("nan")}


class Float64(RightSource):
    """Trains on float64 vectors."""

    def next_batch(self, size: int) -> Batch:
        x = super().next_batch(size).x.double()
        return Batch(x, x)


class CopiesTarget(RightSource):
    """Holds input and target twice."""

    def next_batch(self, size: int) -> Batch:
        x = super().next_batch(size).x
        return Batch(x, x.clone())


class FollowsGlobalSeed(RightSource):
    """An order that depends on the global generator."""

    def order(self, at: int) -> Tensor:
        return super().order(at).roll(torch.initial_seed() % 7)


class IgnoresSeed(RightSource):
    """One order for all seeds."""

    def order(self, at: int) -> Tensor:
        return torch.randperm(self.TRAINING, generator=torch.Generator().manual_seed(at))


class OneVectorOff(RightSource):
    """Goes on one vector too late."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"] + 1


class OneBatchOff(RightSource):
    """Saves the position of the batch that it has read ahead."""

    ahead: Batch | None = None

    def next_batch(self, size: int) -> Batch:
        if self.ahead is None or len(self.ahead) != size:
            self.position -= 0 if self.ahead is None else len(self.ahead)
            self.ahead = super().next_batch(size)
        batch = self.ahead
        self.ahead = super().next_batch(size)
        return batch

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position, self.ahead = state["position"], None


class OneOrder(RightSource):
    """Every pass in the same order."""

    def order(self, at: int) -> Tensor:
        return super().order(0)


class MovesHeldOut(RightSource):
    """Other held-out vectors after training."""

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for batch in super().held_out(n_tokens, batch_size):
            x = batch.x.roll(self.position, dims=0)
            yield Batch(x, x)


class TrainsOnHeldOut(RightSource):
    """Evaluates on what it trains on."""

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for x in self.vectors[:100][:n_tokens].split(batch_size):
            yield Batch(x, x)

    def held_out_part(self) -> HeldOutPart | None:
        return None


class KeepsPart(RightSource):
    """Asked for everything, it gives what is held out."""

    def held_out_part(self) -> HeldOutPart | None:
        class Part(RightPart):
            def take_all(self) -> None:
                pass

        return Part(self)


class SplitsBySeed(RightSource):
    """Holds out otherwise under another seed."""

    def held_out_part(self) -> HeldOutPart | None:
        class Part(RightPart):
            def record(self) -> dict[str, Any]:
                return {"seed": self.source.seed}

            def overlap(self, record: Mapping[str, Any]) -> Overlap:
                return Overlap.TRAINING if record == self.record() else Overlap.HELD_OUT

        return Part(self)


class KeepsAll(RightSource):
    """Says that it divides itself, and gives each process everything."""

    def divide(self, rank: int, world: int) -> bool:
        return True


class DividesHeldOut(RightSource):
    """Holds out other vectors in each process."""

    rank = 0

    def divide(self, rank: int, world: int) -> bool:
        self.rank = rank
        return False

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for batch in super().held_out(n_tokens, batch_size):
            x = batch.x.roll(self.rank, dims=0)
            yield Batch(x, x)


def source(cls: type[DataSource]) -> ComponentSpec:
    return ComponentSpec("data", cls.__name__.lower(), FileConfig, f"{__name__}:{cls.__name__}")


RIGHT = [source(RightSource)]
WRONG = [
    (source(FailsToClose), "constructs"),
    (source(NaNInRecord), "facts"),
    (source(Float64), "batches"),
    (source(CopiesTarget), "autoencoder"),
    (source(FollowsGlobalSeed), "deterministic"),
    (source(IgnoresSeed), "seed"),
    (source(OneVectorOff), "resumes"),
    (source(OneBatchOff), "resumes"),
    (source(OneOrder), "endless"),
    (source(MovesHeldOut), "held-out"),
    (source(TrainsOnHeldOut), "disjoint"),
    (source(KeepsPart), "own-data"),
    (source(SplitsBySeed), "own-data"),
    (source(KeepsAll), "shards"),
    (source(DividesHeldOut), "shards"),
]
