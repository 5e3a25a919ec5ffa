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


def test_names_with_goals_and_of_large_sets() -> None:
    goals, oracle = parse_name("antmaze-large-navigate-v0"), parse_name("puzzle-3x3-noisy-oraclerep-v0")
    assert (goals.mode, goals.environment, goals.dataset) == ("goals", "antmaze-large-v0", "antmaze-large-navigate-v0")
    assert (oracle.mode, oracle.environment, oracle.dataset) == ("oraclerep", "puzzle-3x3-v0", "puzzle-3x3-noisy-v0")
    large = parse_name("puzzle-4x4-play-100m-singletask-task4-v0")
    assert (large.environment, large.size) == ("puzzle-4x4-singletask-task4-v0", "100m")
    assert large.dataset == "puzzle-4x4-play-100m-v0" == parse_name("puzzle-4x4-play-100m-v0").dataset


@pytest.mark.parametrize("task", ["-singletask", "-singletask-task4", ""])
def test_every_scene_has_five_tasks(task: str) -> None:
    assert task_names(f"cube-single-play{task}-v0") == [
        f"cube-single-play-singletask-task{number}-v0" for number in (1, 2, 3, 4, 5)
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pointmaze-medum-navigate-v0",
            r"no environment 'pointmaze-medum-v0' .* mean 'pointmaze-medium-navigate-v0'\?",
        ),
        (
            "cube",
            r"it contains no dataset type \(known: .*Names look like 'cube-single-play-singletask-task1-v0', or 'cube-",
        ),
        ("cube-single-singletask-task1-v0", r"it contains no dataset type \(known: navigate, stitch"),
        (
            "cube-single-play-oracle-v0",
            r"'cube-single-play-oracle-v0' is not the name of an OGBench dataset\. Names look",
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


def test_a_misspelt_dataset_type_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"no dataset type \(known: .*noisy\)\. Did you mean 'navigate'\? Names look"):
        parse_name("pointmaze-medium-naviate-singletask-v0")
