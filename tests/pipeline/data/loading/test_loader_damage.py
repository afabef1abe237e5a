"""Damaged samples on their way through the loader."""

import numpy as np
import pytest

from pipeline.data.loading.damage import Limits
from pipeline.data.loading.loader import EvaluationLoader, Loading, TrainLoader
from pipeline.data.loading.sampler import Sampling, TrainOrder, substitute
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import WorkFailed
from tests.pipeline.data.loading.test_sampler import views
from tests.pipeline.packed import SMALL, copied, digests, overwrite

SAMPLING = Sampling(seed=5, global_batch=192, repeats=3)
GENEROUS = Limits(total=0.01, shard=0.05)
HERE = Loading(workers=0, pauses=(0.0,))


def damaged(digits, path, samples):
    spare = copied(digits, path)
    for sample in samples:
        overwrite(spare, sample)
    return spare


def shown(digits, count):
    """Samples that the epoch of SAMPLING shows, of different shards."""
    order = TrainOrder(digits, SAMPLING)
    samples = np.unique([views(order, 0, step) for step in range(order.steps_per_epoch)])
    return [int(samples[len(samples) * n // count]) for n in range(count)]


@pytest.mark.slow
def test_a_damaged_sample_is_replaced_by_the_same_substitute_wherever_it_stands(digits, tmp_path, caplog):
    bad = shown(digits, 3)
    spare = damaged(digits, tmp_path / "copy", bad)
    with TrainLoader(digits, SAMPLING, SMALL, loading=HERE) as loader:
        gold = digests(loader)
    with TrainLoader(spare, SAMPLING, SMALL, loading=HERE, limits=GENEROUS) as loader:
        found, state = digests(loader), loader.state()
    assert found.keys() == gold.keys()
    order = TrainOrder(digits, SAMPLING)
    for epoch, step in gold:
        for position, sample in enumerate(views(order, epoch, step), step * 192):
            if sample in bad:
                candidates = (substitute(5, epoch, position, n, len(digits)) for n in range(9))
                key = digits.key[next(one for one in candidates if one not in bad)]
                assert found[epoch, step][position][0] == key
            else:
                assert found[epoch, step][position] == gold[epoch, step][position]
    assert sorted(sample for sample, _ in state["damaged"]) == bad
    assert sum("is not used" in record.getMessage() for record in caplog.records) == 3
    fast = Loading(workers=2, batches=3, pauses=())
    for world, loading in ((1, fast), (2, HERE)):
        again = {}
        for rank in range(world):
            with TrainLoader(
                spare, SAMPLING, SMALL, rank=rank, world=world, loading=loading, limits=GENEROUS
            ) as loader:
                loader.load_state(state | {"epoch": 0, "step": 0})
                digests(loader, again)
        assert again == found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_needs_no_list_to_find_the_same_damage(digits, tmp_path, workers):
    spare = damaged(digits, tmp_path / "copy", shown(digits, 3))
    how = Loading(workers=workers, batches=3, pauses=())
    with TrainLoader(spare, SAMPLING, SMALL, loading=HERE, limits=GENEROUS) as loader:
        found = digests(loader)
    with TrainLoader(spare, SAMPLING, SMALL, loading=how, limits=GENEROUS) as loader:
        loader.step = 3
        assert digests(loader) == {key: found[key] for key in found if key[1] >= 3}


def test_the_label_is_that_of_the_substitute(digits, tmp_path):
    bad = shown(digits, 3)
    spare = damaged(digits, tmp_path / "copy", bad)
    with TrainLoader(spare, SAMPLING, SMALL, loading=HERE, limits=GENEROUS) as loader:
        for batch in loader:
            assert not set(batch.sample.tolist()) & set(bad)
            assert batch.labels.tolist() == digits.label[batch.sample].tolist()


@pytest.mark.slow
def test_a_shard_full_of_another_ones_data_stops_the_run(digits, tmp_path):
    spare = copied(digits, tmp_path / "copy")
    other = min(range(8), key=lambda index: abs(spare.shards[index].bytes - spare.shards[3].bytes) or 1 << 40)
    data = spare.path(other).read_bytes()[: spare.shards[3].bytes]
    spare.path(3).write_bytes(data.ljust(spare.shards[3].bytes, b"\0"))
    with (
        TrainLoader(spare, SAMPLING, SMALL, loading=Loading(workers=2, batches=2, pauses=())) as loader,
        pytest.raises(WorkFailed, match=f"{spare.shards[3].name} is damaged"),
    ):
        digests(loader)


def test_ranks_that_agree_on_damage_stop_at_the_same_step(digits, tmp_path):
    spare = damaged(digits, tmp_path / "copy", shown(digits, 12))
    loaders = [
        TrainLoader(spare, SAMPLING, SMALL, rank=rank, world=2, loading=HERE, limits=Limits(total=4e-3))
        for rank in range(2)
    ]
    stopped = []
    for step, batches in enumerate(zip(*loaders, strict=True)):
        if any(batch.fresh for batch in batches):
            for loader in loaders:
                try:
                    loader.damage.agree([batch.fresh for batch in batches])
                except WorkFailed as error:
                    stopped.append((step, str(error)))
        if stopped:
            break
    assert len(stopped) == 2
    assert stopped[0] == stopped[1]
    assert 0 < stopped[0][0] < loaders[0].steps_per_epoch


def test_evaluation_tolerates_no_damage(digits, tmp_path):
    spare = damaged(Manifest.read(digits.root, "validation"), tmp_path / "copy", [200])
    with (
        EvaluationLoader(spare, SMALL, batch=64, loading=HERE) as loader,
        pytest.raises(WorkFailed, match=f"limit is 0 .*{spare.shards[spare.shard[200]].name}"),
    ):
        digests(loader)
