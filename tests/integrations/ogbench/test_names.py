import pytest

from flowpolicies_ogbench import task_names
from flowpolicies_ogbench.names import parse_name


def test_names_are_taken_apart_as_ogbench_does() -> None:
    task = parse_name("puzzle-4x4-play-singletask-task2-v0")
    assert task.environment == "puzzle-4x4-singletask-task2-v0"
    assert task.collecting_environment == "puzzle-4x4-v0"
    assert task.dataset == "puzzle-4x4-play-v0"
    assert parse_name("scene-noisy-singletask-v0").environment == "scene-singletask-v0"
    assert parse_name("antmaze-medium-explore-singletask-v0").dataset == "antmaze-medium-explore-v0"


@pytest.mark.parametrize("task", ["", "-task4"])
def test_every_scene_has_five_tasks(task: str) -> None:
    assert task_names(f"cube-single-play-singletask{task}-v0") == [
        f"cube-single-play-singletask-task{number}-v0" for number in (1, 2, 3, 4, 5)
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pointmaze-medium-navigate-v0",
            r"is not an OGBench single-task name; those look like 'pointmaze-medium-navigate-singletask-v0'\. Goal",
        ),
        ("cube", r"those look like 'cube-single-play-singletask-task1-v0'"),
        (
            "cube-single-singletask-task1-v0",
            r"names no dataset type before 'singletask' \(known: navigate, stitch",
        ),
        (
            "cube-singel-play-singletask-task1-v0",
            r"no environment 'cube-singel-singletask-task1-v0' .* Did you mean 'cube-single-play-singletask-",
        ),
        (
            "cube-single-play-singletask-task6-v0",
            r"Did you mean 'cube-single-play-singletask-task5-v0'",
        ),
    ],
)
def test_wrong_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_name(name)
