import json
from dataclasses import replace

import numpy as np
import pytest

from features.problems import UserError
from training import model_folder
from training.additive import fit_additive
from training.basis import learn_levels, learn_number
from training.compile import compile_scorecard
from training.design import make_design
from training.effect import Posterior
from training.scorecard import BadValue, Scorecard, Support


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)
    n = 400
    amount = np.where(rng.random(n) < 0.1, np.nan, np.exp(rng.normal(size=n)))
    count = rng.poisson(1.0, n).astype(float)
    first = [
        None if gone else str(bool(v)).lower()
        for v, gone in zip(rng.random(n) < 0.5, rng.random(n) < 0.05, strict=True)
    ]
    stage = rng.choice(["a", "b", "c"], n).tolist()
    return {"amount": amount, "count": count, "first": first, "stage": stage}


@pytest.fixture(scope="module")
def fitted(columns):
    """A scorecard with random coefficients and every kind of pair, beside the design it was compiled from."""
    rng = np.random.default_rng(1)
    features = [
        learn_number("amount", columns["amount"]),
        learn_number("count", columns["count"]),
        learn_levels("first", "boolean", columns["first"], 10),
        learn_levels("stage", "category", columns["stage"], 10),
    ]
    places = [f.locate(columns[f.name]) for f in features]
    design = make_design(features, places, np.ones(400)).with_pairs([(0, 1), (0, 3), (2, 3), (1, 2)])
    mean = rng.normal(0, 0.02, design.n_columns)
    draws = mean + rng.normal(0, 0.01, (50, design.n_columns))
    posterior = Posterior(design, mean, draws, np.full(len(design.blocks), 0.01), 0.0004, 1.0)
    treated = rng.random(400) < 0.4
    main = make_design(features, places, np.ones(400))
    card = compile_scorecard(
        posterior,
        places,
        fit_additive(main, places, rng.random(400), logistic=True),
        fit_additive(main, places, treated.astype(float), logistic=True),
        treated,
        True,
        Support(),
    )
    return card, posterior, places, treated


def test_look_ups_equal_the_design_they_were_compiled_from(fitted, columns):
    card, posterior, places, _ = fitted
    answers = card.evaluate(columns)
    each = [posterior.mean, *posterior.draws]
    by_design = np.column_stack([posterior.design.apply(places, coefficients) for coefficients in each])
    np.testing.assert_allclose(answers.uplift, by_design[:, 0], rtol=0, atol=1e-9)
    spread = np.mean((by_design[:, 1:] - by_design[:, :1]) ** 2, axis=1)
    np.testing.assert_allclose(answers.sd**2, spread + 0.0004, rtol=1e-9)


def test_one_decision_is_answered_like_many(fitted, columns):
    card = fitted[0]
    many = card.evaluate(columns)
    for i in range(0, 400, 40):
        values = {
            "amount": None if np.isnan(columns["amount"][i]) else float(columns["amount"][i]),
            "count": int(columns["count"][i]),
            "first": None if columns["first"][i] is None else columns["first"][i] == "true",
            "stage": columns["stage"][i],
        }
        one = card.evaluate_one(values)
        assert one.uplift == pytest.approx(many.uplift[i], abs=1e-12)
        assert one.sd == pytest.approx(many.sd[i], abs=1e-12)
        assert one.similar_decisions == many.similar[i]
        assert one.supported == many.supported[i]
        total = card.baseline[0] + sum(c.uplift for c in one.contributions)
        assert total == pytest.approx(one.uplift, abs=1e-12)


def test_similar_decisions_are_counted_over_the_same_levels(fitted, columns):
    card, _, _, treated = fitted
    alike = [i for i in range(400) if columns["first"][i] == "true" and columns["stage"][i] == "b"]
    answer = card.evaluate_one({"amount": 1.0, "count": 1, "first": True, "stage": "b"})
    assert answer.similar_decisions == len(alike)
    assert len({bool(treated[i]) for i in alike}) == 2


def test_numbers_beyond_what_was_seen_are_answered_like_the_outermost(fitted, columns):
    card = fitted[0]
    most = float(np.nanmax(columns["amount"]))
    beyond, outermost = (
        card.evaluate_one({"amount": x, "count": 1, "first": True, "stage": "b"}) for x in (50 * most, most)
    )
    assert beyond.uplift == outermost.uplift


def test_what_is_missing_and_what_was_never_seen_is_named(fitted):
    answer = fitted[0].evaluate_one({"amount": 1.0, "stage": "a new stage", "first": None})
    assert answer.missing == ("count", "first")
    assert answer.unseen == ("stage",)


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ({"amount": "120000"}, "amount", "a finite number, or null where it is not known"),
        ({"amount": True}, "amount", "a finite number, or null where it is not known"),
        ({"amount": float("nan")}, "amount", "a finite number, or null where it is not known"),
        ({"amount": float("inf")}, "amount", "a finite number, or null where it is not known"),
        ({"first": 1}, "first", "true, false, or null where it is not known"),
        ({"first": "true"}, "first", "true, false, or null where it is not known"),
        ({"stage": 3}, "stage", "a text, or null where it is not known"),
        ({"colour": "red"}, "colour", "a feature of this model"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(fitted, values, feature, expected):
    with pytest.raises(BadValue) as refused:
        fitted[0].check_values(values)
    assert (refused.value.feature, refused.value.expected) == (feature, expected)


def test_a_scorecard_reads_back_as_it_was_written(fitted, columns, tmp_path):
    fitted[0].write(tmp_path)
    again = Scorecard.read(tmp_path).evaluate(columns)
    for name in ("uplift", "sd", "terms", "win", "propensity", "supported", "similar"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted[0].evaluate(columns), name))


def test_uplifts_beyond_one_are_limited_and_the_reasons_and_outcomes_still_add_up(fitted, columns):
    absurd = replace(fitted[0], effect=tuple(40 * table for table in fitted[0].effect))
    answers = absurd.evaluate(columns)
    plain = absurd.baseline[0] + replace(absurd, binary=False).evaluate(columns).terms.sum(axis=1)
    assert (plain > 1).any()
    assert (plain < -1).any()
    np.testing.assert_allclose(answers.uplift, np.clip(plain, -1, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(absurd.baseline[0] + answers.terms.sum(axis=1), answers.uplift, atol=1e-12)
    np.testing.assert_allclose(np.diff(answers.win, axis=1)[:, 0], answers.uplift, rtol=0, atol=1e-12)
    assert answers.win.min() >= 0
    assert answers.win.max() <= 1


def test_without_the_deviation_everything_else_is_the_same(fitted, columns):
    whole, cheap = (fitted[0].evaluate(columns, with_sd) for with_sd in (True, False))
    assert np.isnan(cheap.sd).all()
    for name in ("uplift", "terms", "win", "propensity", "supported", "similar", "outside"):
        np.testing.assert_array_equal(getattr(cheap, name), getattr(whole, name))


def test_the_average_alone_gives_every_decision_the_same_answer(fitted, columns):
    answers = fitted[0].average_only(0.04, 0.01).evaluate(columns)
    assert set(answers.uplift) == {0.04}
    np.testing.assert_allclose(answers.sd, 0.01, rtol=1e-12)
    assert (answers.terms == 0).all()
    np.testing.assert_allclose(np.diff(answers.win, axis=1), 0.04, atol=1e-12)


def test_where_not_even_the_average_is_known_nothing_is_supported(fitted, columns):
    assert fitted[0].average_only(0.04, 0.01).evaluate(columns).supported.any()
    assert not fitted[0].average_only(0.04, 0.01, enough=False).evaluate(columns).supported.any()


def _break_json(folder):
    path = folder / "scorecard.json"
    path.write_text(path.read_text()[:-30])


def _break_npz(folder):
    path = folder / "scorecard.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _drop_feature(folder):
    about = json.loads((folder / "scorecard.json").read_text())
    about["features"][0]["knots"] = about["features"][0]["knots"][:-1]
    (folder / "scorecard.json").write_text(json.dumps(about))


def _pickle(folder):
    np.savez(folder / "scorecard.npz", baseline=np.array([object()], dtype=object))


@pytest.mark.parametrize("damage", [_break_json, _break_npz, _drop_feature, _pickle])
def test_a_scorecard_that_does_not_fit_together_is_refused(fitted, tmp_path, damage):
    fitted[0].write(tmp_path)
    damage(tmp_path)
    with pytest.raises(
        UserError, match=r"is no readable stepin model \(\w+ in its scorecard\); copy it again"
    ):
        Scorecard.read(tmp_path)


def test_a_scorecard_of_a_later_format_is_refused(fitted, tmp_path):
    fitted[0].write(tmp_path)
    about = json.loads((tmp_path / "scorecard.json").read_text())
    (tmp_path / "scorecard.json").write_text(json.dumps(about | {"format": 7}))
    with pytest.raises(
        UserError, match=r"holds a scorecard of format 7; this stepin reads up to 1\. Upgrade stepin"
    ):
        Scorecard.read(tmp_path)


class TestModelFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        with model_folder.writing(tmp_path / "m") as fresh:
            (fresh / "a.json").write_text("{}")
            model_folder.write_facts(fresh, {"name": "x"})
        return tmp_path / "m"

    def test_a_sealed_folder_verifies_and_its_digest_follows_its_content(self, folder, tmp_path):
        first = model_folder.verify(folder)
        with model_folder.writing(tmp_path / "other") as fresh:
            (fresh / "a.json").write_text("{ }")
            model_folder.write_facts(fresh, {"name": "x"})
        assert model_folder.verify(tmp_path / "other").digest != first.digest
        assert sorted(first.files) == ["a.json", "facts.json"]
        assert model_folder.read_facts(folder) == {"name": "x"}

    def test_nothing_is_left_when_writing_fails(self, tmp_path):
        def write_half():
            with model_folder.writing(tmp_path / "m") as fresh:
                (fresh / "a.json").write_text("half")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            write_half()
        assert list(tmp_path.iterdir()) == []

    def test_a_model_is_replaced_only_when_asked_and_only_when_the_new_one_is_whole(self, folder):
        before = model_folder.verify(folder).digest
        with (
            pytest.raises(UserError, match=r"already holds a model; name another folder with --out"),
            model_folder.writing(folder),
        ):
            pass
        with pytest.raises(RuntimeError), model_folder.writing(folder, overwrite=True):
            raise RuntimeError
        assert model_folder.verify(folder).digest == before
        with model_folder.writing(folder, overwrite=True) as fresh:
            (fresh / "b.json").write_text("{}")
        assert sorted(model_folder.verify(folder).files) == ["b.json"]
        assert [p.name for p in folder.parent.iterdir()] == ["m"]

    def test_a_folder_with_something_else_in_it_is_never_replaced(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with (
            pytest.raises(UserError, match="exists and is no stepin model"),
            model_folder.writing(tmp_path, True),
        ):
            pass

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda f: (f / "a.json").write_text("changed"),
                "is a damaged model: a.json is missing or was changed",
            ),
            (lambda f: (f / "a.json").unlink(), "is a damaged model: a.json is missing or was changed"),
            (lambda f: (f / "manifest.json").write_text("{"), "is a damaged model: manifest.json is missing"),
            (
                lambda f: (f / "manifest.json").unlink(),
                "is no stepin model (it has no manifest.json). Make one with",
            ),
            (
                lambda f: (f / "manifest.json").write_text('{"format": 9, "files": {}, "digest": ""}'),
                "is a model of format 9; this stepin reads up to 1. Upgrade stepin",
            ),
            (
                lambda f: (f / "manifest.json").write_text(
                    json.dumps({"format": 1, "files": {"../../secret": "0"}, "digest": ""})
                ),
                "is no model as stepin writes them: its manifest names a file that no model has.",
            ),
        ],
    )
    def test_a_damaged_folder_is_refused_in_one_sentence(self, folder, damage, message):
        damage(folder)
        with pytest.raises(UserError) as refused:
            model_folder.verify(folder)
        assert message in str(refused.value)
