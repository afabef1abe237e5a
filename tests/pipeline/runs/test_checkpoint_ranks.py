"""A checkpoint of several ranks is published by all of them or by none."""

import json
import threading
from pathlib import Path

import pytest

from pipeline.errors import WorkFailed
from pipeline.processes.ranks import Ranks
from pipeline.runs.checkpoints import MANIFEST, TEMPORARY, Checkpoints, SaveFailed
from tests.pipeline.runs.published import steps, writer


class Threads:
    """Ranks that are threads of this process."""

    def __init__(self, world: int) -> None:
        self.barrier, self.values = threading.Barrier(world, timeout=20), [None] * world

    def rank(self, rank: int):
        threads = self

        class Rank(Ranks):
            def __init__(self) -> None:
                self.rank = rank

            def gather(self, value):
                threads.barrier.wait()
                threads.values[rank] = value
                threads.barrier.wait()
                values = list(threads.values)
                threads.barrier.wait()
                return values

            def share(self, value):
                return self.gather(value)[0]

        return Rank()


def on_threads(world: int, work) -> list:
    """`work(rank's Ranks)` on every rank; results or errors by rank."""
    threads, outcomes = Threads(world), [None] * world

    def run(rank: int) -> None:
        try:
            outcomes[rank] = work(threads.rank(rank))
        except Exception as error:
            outcomes[rank] = error

    running = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return outcomes


def test_several_ranks_write_one_checkpoint(tmp_path):
    def work(ranks):
        write = writer(5, ranks.rank)
        return Checkpoints(tmp_path, ranks).publish(5, write, {"from": ranks.rank}), Checkpoints(
            tmp_path, ranks
        ).resume()

    outcomes = on_threads(3, work)
    assert len({path for path, _ in outcomes}) == 1
    path = outcomes[0][0]
    assert sorted(json.loads((path / MANIFEST).read_text())["files"]) == sorted(
        [f"engine/rank-{rank}.bin" for rank in range(3)]
        + [f"weights-{rank}.bin" for rank in range(3)]
        + ["state.json"]
    )
    assert {found.state["from"] for _, found in outcomes} == {0}


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "file"), RuntimeError("write failed")]
)
def test_where_one_rank_cannot_write_no_rank_publishes(tmp_path, failing, error):
    on_threads(2, lambda ranks: Checkpoints(tmp_path, ranks).publish(1, writer(1, ranks.rank), {}))

    def work(ranks):
        def write(directory: Path) -> list[str]:
            if ranks.rank == failing:
                raise error
            return writer(2, ranks.rank)(directory)

        return Checkpoints(tmp_path, ranks).publish(2, write, {})

    outcomes = on_threads(2, work)
    for outcome in outcomes:
        assert type(outcome) is (SaveFailed if isinstance(error, OSError) else WorkFailed)
        assert f"rank {failing}: " in str(outcome)
    assert len({str(outcome) for outcome in outcomes}) == 1
    assert steps(tmp_path) == [1]
    assert not list(tmp_path.glob(TEMPORARY + "*"))
