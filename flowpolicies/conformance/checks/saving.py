"""Saving."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from stable_baselines3.common.save_util import load_from_zip_file

from flowpolicies.conformance.case import STEPS, Case, best_actions, same_weights, without
from flowpolicies.conformance.promises import over


@over(string=str, path=lambda path: path)
def saves_to_a_path(case: Case, convert: type) -> None:
    """A model is saved to a path given as a string or as a Path, and is loaded from it."""
    model, path = case.trained(), case.folder / "model.zip"
    model.save(convert(path))
    assert path.is_file(), "no file was written"
    assert same_weights(model, case.load(convert(path))), "the loaded weights differ"


def the_suffix_may_be_left_out(case: Case) -> None:
    """`save("name")` writes `name.zip`, and `load("name")` reads it."""
    model, path = case.trained(), case.folder / "model"
    model.save(str(path))
    assert path.with_suffix(".zip").is_file(), f"the files are {[p.name for p in case.folder.iterdir()]}"
    assert same_weights(model, case.load(str(path))), "the loaded weights differ"


def names_may_have_dots(case: Case) -> None:
    """A name with a dot, such as `model_v1.5`, is saved and loaded under that name."""
    model = case.trained()
    model.save(case.folder / "model_v1.5")
    assert same_weights(model, case.load(case.folder / "model_v1.5")), "the loaded weights differ"


def folders_are_made(case: Case) -> None:
    """Folders that do not exist are made."""
    case.model().save(case.folder / "new" / "folder" / "model")
    assert (case.folder / "new" / "folder" / "model.zip").is_file(), "no file was written"


def saves_to_a_file_object(case: Case) -> None:
    """A model is saved to an open file or a BytesIO, and is loaded from it."""
    model, memory = case.trained(), io.BytesIO()
    model.save(memory)
    memory.seek(0)
    assert same_weights(model, case.load(memory)), "the weights loaded from BytesIO differ"
    with (case.folder / "model.zip").open("wb") as file:
        model.save(file)
    with (case.folder / "model.zip").open("rb") as file:
        assert same_weights(model, case.load(file)), "the weights loaded from the file differ"


def files_have_the_documented_parts(case: Case) -> None:
    """The file is a zip archive with the documented members."""
    names = zipfile.ZipFile(case.saved()).namelist()
    expected = ["data", "policy.pth", "pytorch_variables.pth", "_stable_baselines3_version", "system_info.txt"]
    missing = without(expected, names)
    assert not missing, f"missing in the archive: {missing}"


def files_can_be_read_without_the_class(case: Case) -> None:
    """`load_from_zip_file` gives the data and the parameters of a saved model."""
    data, params, _ = load_from_zip_file(case.saved(), device="cpu")
    assert data is not None, "there are no data"
    missing = without(["gamma", "batch_size", "observation_space", "action_space", "num_timesteps"], data)
    assert not missing, f"missing in the data: {missing}"
    assert "policy" in (params or {}), "the parameters have no policy"


def excluded_attributes_are_not_saved(case: Case) -> None:
    """`save(path, exclude=[...])` leaves attributes out, and the loaded model has the constructor's default."""
    model = case.model(verbose=2)
    model.save(case.folder / "model", exclude=["verbose"])
    assert case.load(case.folder / "model").verbose == 0, "verbose was saved although it was excluded"


def included_attributes_are_saved(case: Case) -> None:
    """`save(path, exclude=[...], include=[...])` saves what is included."""
    model = case.model(verbose=2)
    model.save(case.folder / "model", exclude=["verbose"], include=["verbose"])
    assert case.load(case.folder / "model").verbose == 2, "verbose was not saved although it was included"


def the_replay_buffer_is_not_saved_with_the_model(case: Case) -> None:
    """The model's file does not contain the replay buffer, so that it stays small."""
    model = case.trained()
    model.save(case.folder / "model")
    data, _, _ = load_from_zip_file(case.folder / "model.zip", device="cpu")
    assert "replay_buffer" not in (data or {}), "the data have a replay buffer"
    loaded = case.load(case.folder / "model")
    assert loaded.replay_buffer is not None
    assert loaded.replay_buffer.size() == 0, f"the loaded buffer has {loaded.replay_buffer.size()} rows"


def saving_leaves_the_model_alone(case: Case) -> None:
    """A model that was saved learns on as if it had not been."""
    plain, saved = case.trained(), case.trained()
    saved.save(case.folder / "model")
    for model in (plain, saved):
        model.set_random_seed(5)
        model.learn(STEPS)
    assert same_weights(plain, saved), "saving changed what is learned later"


def custom_attributes_are_saved(case: Case) -> None:
    """Attributes that a user adds to the model are saved with it."""
    model = case.model()
    model.my_note = {"experiment": 7}  # type: ignore[attr-defined]
    model.save(case.folder / "model")
    found = getattr(case.load(case.folder / "model"), "my_note", None)
    assert found == {"experiment": 7}, f"the loaded attribute is {found}"


def saved_models_are_independent(case: Case) -> None:
    """Training a loaded model changes neither the original nor another loaded copy."""
    model, path = case.trained(), case.folder / "model"
    model.save(path)
    before, first, second = best_actions(model), case.load(path, case.env()), case.load(path)
    first.learn(STEPS)
    np.testing.assert_array_equal(best_actions(model), before, err_msg="the original changed")
    np.testing.assert_allclose(best_actions(second), before, atol=1e-6, err_msg="the other copy changed")


def a_loaded_model_can_be_saved_again(case: Case) -> None:
    """Saving and loading twice gives the same model."""
    model = case.load(case.saved())
    model.save(case.folder / "again")
    assert same_weights(model, case.load(case.folder / "again")), "the weights differ"
