import re
from pathlib import Path

import pytest

from features.problems import UserError
from serving.settings import Settings
from serving.variables import names

COSTS = {"STEPIN_HOURS": "12", "STEPIN_COST_PER_HOUR": "90.5", "STEPIN_MARGIN": "0.3"}


def test_what_is_not_given_is_left_to_the_model():
    settings = Settings.from_environ({"STEPIN_MODEL": "models/winter", "STEPIN_HOURS": " ", "PATH": "/bin"})
    assert settings == Settings(Path("models/winter"))
    assert settings.policy_changes() == {}


def test_every_variable_is_read():
    environ = {"STEPIN_MODEL": "m", "STEPIN_BREAK_EVEN_POINTS": "-2", **COSTS}
    assert Settings.from_environ(environ).policy_changes() == {
        "break_even_points": -2.0,
        "hours": 12.0,
        "cost_per_hour": 90.5,
        "margin": 0.3,
    }


def test_settings_survive_the_way_through_the_environment(tmp_path):
    settings = Settings(
        tmp_path,
        break_even_points=0.1 + 0.2,
        margin=0.25,
        model_name="winter",
        model_version="3",
        shadow=Path("models:/stepin@challenger"),
        poll_seconds=0.5,
        model_pointer=tmp_path / "served.json",
        shadow_pointer=tmp_path / "shadow.json",
        journal="strict",
        keys_required=True,
        cors_origins=("https://crm.example", "https://sales.example"),
    )
    assert Settings.from_environ(settings.to_environ()) == settings


def test_a_registry_address_survives_the_way_through_the_environment():
    settings = Settings.from_environ({"STEPIN_MODEL": "models:/stepin@champion"})
    assert settings.to_environ()["STEPIN_MODEL"] == "models:/stepin@champion"
    assert Settings.from_environ(settings.to_environ()) == settings


def test_a_place_means_the_same_in_another_working_folder():
    written = Settings(Path("m"), shadow=Path("other")).to_environ()
    assert Path(written["STEPIN_SHADOW"]).is_absolute()
    assert Path(written["STEPIN_MODEL"]).is_absolute()


def test_every_variable_is_documented():
    documented = set(re.findall(r"``(STEPIN_\w+)``", Settings.__doc__ or ""))
    assert documented == {"STEPIN_MODEL", *names(Settings)}


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "STEPIN_MODEL is not set: name the model folder that stepin train wrote."),
        (
            {"STEPIN_MODEL": "m", "STEPIN_JOURNAL": "sometimes"},
            "STEPIN_JOURNAL should be one of background, strict, off; came 'sometimes'.",
        ),
        (
            {"STEPIN_MODEL": "m", "STEPIN_KEYS_REQUIRED": "maybe"},
            "STEPIN_KEYS_REQUIRED should be 1 or 0; came 'maybe'.",
        ),
        (
            {"STEPIN_MODEL": "m", "STEPIN_POLL_SECONDS": "0"},
            "STEPIN_POLL_SECONDS should be a number from 0.05 to 3600 (seconds); came '0'.",
        ),
        (
            {"STEPIN_MODEL": "m", "STEPIN_HOURS": "many"},
            "STEPIN_HOURS should be a number from 0 to 1e+06 (vendor hours); came 'many'.",
        ),
        (
            {"STEPIN_MODEL": "m", "STEPIN_MARGIN": "30"},
            "STEPIN_MARGIN should be a number from 1e-06 to 1 (a share of the deal's amount); came '30'.",
        ),
        (
            {"STEPIN_MODEL": "m", "STEPIN_BREAK_EVEN_POINTS": "nan"},
            "STEPIN_BREAK_EVEN_POINTS should be a number from -100 to 100 (percentage points); came 'nan'.",
        ),
    ],
)
def test_a_bad_variable_is_refused_by_name(environ, sentence):
    with pytest.raises(UserError) as refused:
        Settings.from_environ(environ)
    assert str(refused.value) == sentence
