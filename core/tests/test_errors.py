import pytest

from llmtune import errors


def test_an_error_shows_the_problem_then_what_to_do():
    assert str(errors.UsageError("wrong", fix="do this")) == "wrong\n  do this"
    assert str(errors.UsageError("wrong")) == "wrong"


def test_what_an_error_knows_stays_on_it():
    assert errors.PluginFailed("wrong", plugin="acme").plugin == "acme"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.UnknownName, 2),
        (errors.NameConflict, 2),
        (errors.DataError, 1),
        (errors.PluginFailed, 1),
        (errors.CheckpointError, 2),
        (errors.Interrupted, 130),
    ],
)
def test_the_kind_of_an_error_is_its_exit_code(kind, code):
    assert kind("x").exit_code == code


def test_the_closest_names_are_suggested_with_their_prefix():
    assert errors.did_you_mean("lora_rnak", ["lora_rank", "seed"], prefix="--") == "did you mean --lora_rank?"
    assert errors.did_you_mean("zzz", ["lora_rank", "seed"]) == ""
