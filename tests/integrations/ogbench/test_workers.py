import functools
import math
import multiprocessing
import os

import pytest

from flowpolicies_ogbench.workers import map_in_workers

# A worker process imports `setup` by its name, and test modules cannot be imported there. So `setup` is built from
# functions of the standard library.
double = functools.partial(functools.partial, math.ldexp, 1.0)  # double()(n) == 2 ** n
die = functools.partial(functools.partial, os._exit)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_argument_is_answered_once(workers: int) -> None:
    assert sorted(map_in_workers(double, [3, 1, 4, 1, 5], workers)) == [(0, 8), (1, 2), (2, 16), (3, 2), (4, 32)]
    assert not multiprocessing.active_children()


def test_more_workers_than_arguments() -> None:
    assert list(map_in_workers(double, [3], workers=4)) == [(0, 8)]


def test_a_worker_that_dies_between_two_tasks_is_reported() -> None:
    answers = map_in_workers(double, [1] * 20, workers=2)
    next(answers)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    with pytest.raises(ChildProcessError, match="a worker process died with exit code -9"):
        list(answers)


def test_an_abandoned_iteration_leaves_no_process() -> None:
    answers = map_in_workers(double, [1] * 20, workers=2)
    next(answers)
    assert len(multiprocessing.active_children()) == 2
    answers.close()
    assert not multiprocessing.active_children()


def test_the_death_of_a_worker_is_reported() -> None:
    with pytest.raises(ChildProcessError, match="a worker process died with exit code 3; its own error is printed"):
        list(map_in_workers(die, [3, 3, 3], workers=2))
    assert not multiprocessing.active_children()
