import threading
import time
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

from mvlib.errors import BadImageError, NoAnswerError
from mvlib.inference.pipeline import Job, lanes_of, run_pipeline

SHAPE = (4, 4, 3)


def image(path):
    return np.full(SHAPE, int(path.stem) % 256, np.uint8)


def jobs(total, batch_size):
    names = [Path(f"{number}.jpg") for number in range(total)]
    return [Job(names[first:first + batch_size], first) for first in range(0, total, batch_size)]


def first_pixels(images):
    return images[:, 0, 0, 0].tolist()


def run(items, read=image, compute=first_pixels, batch_size=4, workers=3, lanes=2):
    return run_pipeline(items, read, compute, image_shape=SHAPE, batch_size=batch_size, workers=workers, lanes=lanes)


def test_answers_come_in_order_though_images_take_unequal_times():
    def read(path):
        time.sleep(0.02 if int(path.stem) % 5 == 0 else 0)
        return image(path)

    def compute(images):
        time.sleep(0.03 if images[0, 0, 0, 0] == 0 else 0)
        return first_pixels(images)

    answers = list(run(jobs(30, 4), read, compute))
    assert [answer.job.tag for answer in answers] == list(range(0, 30, 4))
    assert [value for answer in answers for value in answer.output] == list(range(30))


def test_images_that_cannot_be_read_leave_the_others_in_their_places():
    def read(path):
        if int(path.stem) in (1, 4, 5, 6, 7):
            raise BadImageError(f"{path}: file is empty")
        return image(path)

    one, two, three = run(jobs(9, 4), read)
    assert (one.read, one.output, one.failures) == ([0, 2, 3], [0, 2, 3], [(1, "file is empty")])
    assert (two.read, two.output, len(two.failures)) == ([], None, 4)
    assert three.output == [8]


def test_images_without_an_answer_are_failures_and_the_others_are_answered():
    def read(path):
        if path.stem == "1":
            raise BadImageError(f"{path}: file is empty")
        return image(path)

    def compute(images):
        pixels = first_pixels(images)
        if bad := {row: "no answer" for row, value in enumerate(pixels) if value in (2, *range(4, 8))}:
            raise NoAnswerError(bad)
        return pixels

    one, two, three = run(jobs(9, 4), read, compute)
    assert (one.read, one.output) == ([0, 3], [0, 3])
    assert one.failures == [(1, "file is empty"), (2, "no answer")]
    assert (two.read, two.output, two.failures) == ([], None, [(row, "no answer") for row in range(4)])
    assert three.output == [8]


def test_batches_are_contiguous_uint8():
    seen = []

    def read(path):
        if path.stem == "1":
            raise BadImageError("gone")
        return image(path)

    list(run(jobs(6, 4), read, lambda images: seen.append((images.shape, images.dtype, images.flags.c_contiguous))))
    assert sorted(seen) == [((2, *SHAPE), np.uint8, True), ((3, *SHAPE), np.uint8, True)]


def test_batches_lie_where_they_are_wanted():
    given = []

    def allocate(shape, dtype):
        given.append(np.zeros(shape, dtype))
        return given[-1]

    seen = []
    list(run_pipeline(jobs(8, 4), image, lambda images: seen.append(any(images.base is memory for memory in given)),
                      image_shape=SHAPE, batch_size=4, workers=1, allocate=allocate))
    assert seen == [True, True]


@pytest.mark.parametrize("where", ["read", "compute", "jobs"])
def test_an_error_of_a_thread_is_not_lost(where):
    def fail(*_):
        raise RuntimeError("no such luck")

    items = (fail() if where == "jobs" and job.tag == 8 else job for job in jobs(40, 4))
    with pytest.raises(RuntimeError, match="no such luck"):
        list(run(items, fail if where == "read" else image, fail if where == "compute" else first_pixels))


def test_an_endless_list_is_drawn_from_as_it_is_needed():
    drawn = []

    def endless():
        for number in count():
            drawn.append(number)
            yield Job([Path(f"{number}.jpg")], number)

    taken = list(islice(run(endless(), batch_size=1), 50))
    assert [answer.job.tag for answer in taken] == list(range(50))
    assert len(drawn) < 60


def test_buffers_are_used_again():
    places = set()
    list(run(jobs(400, 4), compute=lambda images: places.add(images.ctypes.data)))
    assert len(places) <= 4


def test_threads_end_with_the_run():
    before = threading.active_count()
    answers = run(jobs(400, 4))
    next(answers)
    answers.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_warming_up_goes_before_and_beside():
    events, read = [], threading.Event()

    def image_after_warm_up(path):
        assert read.wait(10)
        return image(path)

    def warm_up():
        events.append("warm")
        read.set()  # while nothing is read yet
        raise RuntimeError("is for compute to say")

    list(run_pipeline(jobs(8, 4), image_after_warm_up, lambda images: events.append("compute"), image_shape=SHAPE,
                      batch_size=4, workers=1, warm_up=warm_up))
    assert events == ["warm", "compute", "compute"]


def test_lanes():
    assert [lanes_of(cores) for cores in (1, 2, 8, 20)] == [(1, 1), (2, 1), (8, 1), (8, 2)]
    assert [lanes_of(8, count) for count in (1, 3, 100)] == [(1, 8), (3, 2), (8, 1)]
