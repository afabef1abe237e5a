"""Batches put together from tasks that are done in any order."""

import random

import numpy as np
import pytest

from pipeline.data.loading.assembly import Assembler, Order
from pipeline.data.loading.buffers import Buffers
from pipeline.data.loading.damage import DamagedSamples, Limits
from pipeline.data.loading.rendering import Failure, Rendered
from pipeline.data.loading.sampler import Sampling, TrainOrder, substitute
from pipeline.data.loading.worker import LARGEST_MESSAGE
from tests.pipeline.data.loading.test_sampler import made_up, views


class Shuffled:
    """Tasks that write each view's sample into its place, done in random order; bad samples fail."""

    def __init__(self, buffers, bad=(), seed=0):
        self.buffers, self.bad, self.draw = buffers, set(bad), random.Random(seed)
        self.waiting, self.tasks = [], []

    def submit(self, task):
        self.waiting.append(task)
        self.tasks.append(task)

    def collect(self):
        task = self.waiting.pop(self.draw.randrange(len(self.waiting)))
        failures, place = [], task.place
        for image in task.images:
            places = range(place, place + int(image["views"]))
            place = places.stop
            if image["sample"] in self.bad:
                failures.append(Failure(int(image["sample"]), "bad", places))
            else:
                self.buffers.batch(task.buffer)[places] = image["sample"] % 251
        return Rendered(task.ticket, 0, failures)

    def close(self):
        pass


def orders(order, epoch=0):
    for step in range(order.steps_per_epoch):
        position = step * order.sampling.global_batch + np.arange(order.sampling.global_batch)
        yield Order(epoch, step, 0, order.samples(epoch, position), position)


def assembler(manifest, bad=(), slots=4, views_per_task=10, limits=None):
    buffers = Buffers(slots, (192, 2, 2, 3), 0)
    queue = Shuffled(buffers, bad)
    damage = DamagedSamples(manifest, limits or Limits(total=0.1, shard=0.5))
    return Assembler(manifest, queue, buffers, damage, 5, views_per_task), queue


@pytest.mark.parametrize("repeats", [1, 3])
def test_batches_come_in_order_and_whole_however_their_tasks_end(repeats):
    manifest = made_up(1920)
    order = TrainOrder(manifest, Sampling(global_batch=192, repeats=repeats))
    assembling, _ = assembler(manifest)
    steps = []
    for batch, images in assembling.assemble(orders(order)):
        steps.append(batch.step)
        assert (images == (batch.sample % 251).astype(np.uint8)[:, None, None, None]).all()
    assert steps == list(range(order.steps_per_epoch))


def test_an_image_that_is_shown_three_times_is_rendered_by_one_task():
    manifest = made_up(1920)
    assembling, queue = assembler(manifest)
    for _ in assembling.assemble(orders(TrainOrder(manifest, Sampling(global_batch=192, repeats=3)))):
        pass
    for task in queue.tasks:
        assert set(task.images["views"].tolist()) == {3}
        assert 9 <= 3 * len(task.images) <= 12


def test_substitutes_are_the_first_that_can_be_used_even_where_they_fail_too():
    manifest = made_up(1920)
    order = TrainOrder(manifest, Sampling(global_batch=192, repeats=1))
    bad = set(views(order, 0, 2)[::3].tolist())
    assembling, _ = assembler(manifest, bad)
    for batch, images in assembling.assemble(orders(order)):
        for place, sample in enumerate(views(order, 0, batch.step).tolist()):
            if sample in bad:
                candidates = (substitute(5, 0, int(batch.position[place]), n, 1920) for n in range(99))
                sample = next(one for one in candidates if one not in bad)
            assert batch.sample[place] == sample
        assert (images == (batch.sample % 251).astype(np.uint8)[:, None, None, None]).all()
        assert batch.findings.keys() <= bad


def test_a_batch_beyond_the_limits_ends_without_trying_the_whole_set():
    manifest = made_up(1920)
    order = TrainOrder(manifest, Sampling(global_batch=192, repeats=1))
    assembling, queue = assembler(manifest, bad=range(1920), slots=1, limits=Limits(0.01, 0.5))
    batch, _ = next(assembling.assemble(orders(order)))
    assert len(batch.findings) > 19
    assert len(queue.tasks) < 3 * 192


def test_places_without_a_sample_are_empty_and_cost_nothing():
    manifest = made_up(1920)
    assembling, queue = assembler(manifest, slots=1)
    sample = np.where(np.arange(192) < 5, np.arange(192) + 7, -1)
    both = [Order(0, 0, 0, np.arange(192), sample), Order(0, 1, 0, sample, sample)]
    for batch, images in assembling.assemble(iter(both)):
        assert bool(images[5:].any()) == (batch.step == 0)
        assert images[:5].any()
    assert sum(len(task.images) for task in queue.tasks) == 192 + 5


def test_a_task_of_many_images_still_fits_into_a_message():
    manifest = made_up(1920)
    queue = Shuffled(buffers := Buffers(1, (1920, 2, 2, 3), 0))
    assembling = Assembler(
        manifest, queue, buffers, DamagedSamples(manifest, Limits()), 5, views_per_task=10_000
    )
    batch, _ = next(assembling.assemble(orders(TrainOrder(manifest, Sampling(global_batch=1920, repeats=1)))))
    assert sum(len(task.images) for task in queue.tasks) == len(batch.sample) == 1920
    assert max(len(task.packed()) for task in queue.tasks) < LARGEST_MESSAGE
    assert len(queue.tasks) > 1
