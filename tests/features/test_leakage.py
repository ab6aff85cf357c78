"""Columns that know the future are found and said in words; honest ones pass."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import build_decisions, catalog, read_flat, simulate
from features.column_types import infer
from features.leakage import LeakageError, allowed_before, audit_columns, audit_tables
from features.leakage_rules import RULES
from features.problems import UserError
from features.tables import Tables

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
IBM = DATA / "ibm_win_loss" / "sales_win_loss.csv.gz"
SALVIRT = DATA / "salvirt" / "Salvirt_B2B_ML_dataset.csv"
PROCESS_COLUMNS = {
    "Elapsed Days In Sales Stage",
    "Sales Stage Change Count",
    "Total Days Identified Through Closing",
    "Total Days Identified Through Qualified",
    "Ratio Days Identified To Total Days",
    "Ratio Days Validated To Total Days",
    "Ratio Days Qualified To Total Days",
}
needs_ibm = pytest.mark.skipif(not IBM.exists(), reason="the IBM sample is not there")


@pytest.fixture(scope="module")
def tables():
    return simulate(2000, seed=3).tables


def with_deals(tables: Tables, **columns) -> Tables:
    return replace(tables, deals=tables.deals.assign(**columns))


def verdicts(audit):
    return {found.column: (found.verdict, found.rule) for found in audit.findings}


def deals(n=2000, seed=0):
    """Deals of a flat file: outcome, choice, and honest columns that foretell both a little."""
    rng = np.random.default_rng(seed)
    size, stepped_in = rng.normal(size=n), rng.random(n) < 0.4
    won = rng.random(n) < 1 / (1 + np.exp(0.8 + size - 0.3 * stepped_in))
    frame = pd.DataFrame(
        {"amount": np.round(np.exp(10 + size), -2), "industry": rng.choice(list("ABCDE"), n)}
    )
    return frame, won, stepped_in, rng


@pytest.fixture(scope="module")
def ibm():
    frame = pd.read_csv(IBM, keep_default_na=False)
    return frame[frame["Route To Market"].isin(["Fields Sales", "Reseller"])]


@needs_ibm
def test_ibms_process_columns_stop_and_its_suspects_are_named(ibm):
    frame = ibm.drop(columns=["Opportunity Result", "Route To Market"])
    audit = audit_columns(frame, ibm["Opportunity Result"] == "Won", ibm["Route To Market"] == "Fields Sales")
    assert {found.column for found in audit.blatant} == PROCESS_COLUMNS
    warned = {name: rule for name, (verdict, rule) in verdicts(audit).items() if verdict == "warn"}
    assert warned == {
        "Opportunity Number": "id",
        "Revenue From Client Past Two Years": "contains the deal",
        "Deal Size Category": "derived",
    }
    assert "'Opportunity Amount USD' in 7 classes" in audit.findings[-1].why


@needs_ibm
def test_ibms_ratios_stop_whatever_their_unit_is_called(ibm):
    frame = ibm[sorted(PROCESS_COLUMNS)].rename(columns=lambda name: name.replace("Ratio Days", "Share Time"))
    frame = frame.rename(columns=lambda name: name.replace("Total Days", "All"))
    audit = audit_columns(frame, ibm["Opportunity Result"] == "Won", ibm["Route To Market"] == "Reseller")
    shares = [found for found in audit.findings if found.column.startswith("Share Time")]
    assert [found.verdict for found in shares] == ["stop"] * 3
    assert all("it makes a whole" in found.why for found in shares)


@needs_ibm
def test_ibms_whole_table_is_refused_with_the_seven_named(tmp_path):
    text = (ROOT / "examples" / "ibm_win_loss.toml").read_text()
    columns = tmp_path / "all.toml"
    columns.write_text(re.sub(r"\[features\].*?\n\]\n", "", text, flags=re.DOTALL))
    with pytest.raises(LeakageError) as refusal:
        read_flat(IBM, columns)
    first, *each, last = str(refusal.value).splitlines()
    assert first == "7 columns know the future."
    assert {line.split("'")[1] for line in each} == PROCESS_COLUMNS
    assert len(each) == 7
    assert last == (
        "Leave them out under [features] of all.toml, or keep one after looking: "
        "--allow 'Elapsed Days In Sales Stage'."
    )


@needs_ibm
def test_ibms_honest_columns_pass():
    assert read_flat(IBM, ROOT / "examples" / "ibm_win_loss.toml").about["audit"] == []


@pytest.mark.skipif(not SALVIRT.exists(), reason="the Salvirt sample is not there")
def test_448_honest_deals_pass():
    assert read_flat(SALVIRT, ROOT / "examples" / "salvirt.toml").about["audit"] == []


@pytest.mark.parametrize(
    ("n", "seed", "effect"),
    [(150, 1, True), (300, 2, False), (800, 4, True), (5000, 0, True), (5000, 5, False)],
)
def test_no_column_of_the_simulated_crm_is_flagged(n, seed, effect):
    made = simulate(n, seed=seed, effect=effect).tables
    assert audit_tables(made).lines() == []
    table = build_decisions(made)
    assert {"days_open", "already_involved", "pair_wins_before"} <= set(table.features.columns)
    audit = audit_columns(table.features, table.outcome, table.treatment, deals=table.rows["deal_id"])
    assert audit.lines() == []


def test_days_that_end_at_the_moment_do_not_accumulate_until_the_closing():
    table = build_decisions(simulate(1500, seed=13).tables, every_days=14)
    choice = table.treatment
    built = audit_columns(
        table.features, table.outcome, choice, deals=table.rows["deal_id"], as_of=catalog.names()
    )
    assert "days_in_stage" in table.features.columns
    assert built.lines() == []
    of_a_stranger = audit_columns(table.features[["days_in_stage"]], table.outcome, choice)
    assert verdicts(of_a_stranger)["days_in_stage"][1] == "accumulates"


def test_columns_of_chance_are_not_flagged_on_few_deals():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({f"n{i}": rng.normal(size=200) for i in range(10)})
        frame = frame.assign(**{f"c{i}": rng.choice(list("ABCDEF"), 200) for i in range(10)})
        frame["gaps"] = frame["n0"].mask(rng.random(200) < 0.3)
        frame["counts"] = rng.poisson(0.7, 200)
        assert audit_columns(frame, rng.random(200) < 0.3, rng.random(200) < 0.3).lines() == []


def leak(kind, won, rng):
    n = len(won)
    fuzzy = rng.random(n)
    return {
        "Probability": np.where(won, 100, 0),
        "Rating": np.where(won, np.where(fuzzy < 0.85, "Hot", "Warm"), "Cold"),
        "ForecastCategory": np.where(won, "Closed", "Omitted"),
        "stage": np.where(won, "Closed Won", np.where(fuzzy < 0.95, "Closed Lost", "Proposal")),
        "close_value": np.where(won, np.round(rng.lognormal(10, 1, n)), 0),
        "loss_reason": pd.Series(
            np.where(won | (fuzzy < 0.5), None, rng.choice(["Price", "Timing"], n)), dtype="str"
        ),
        "po_number_given": pd.Series(np.where(won, "yes", None), dtype="str"),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["Probability", "Rating", "ForecastCategory", "stage", "close_value", "loss_reason", "po_number_given"],
)
@pytest.mark.parametrize("n", [300, 3000])
def test_what_was_written_when_the_outcome_was_known_stops(kind, n):
    frame, won, stepped_in, rng = deals(n)
    frame[kind] = leak(kind, won, rng)
    audit = audit_columns(frame, won, stepped_in)
    assert [found.column for found in audit.blatant] == [kind]
    assert audit.blatant[0].rule in ("outcome", "missingness")


def test_dynamics_rating_stops_on_the_tables_too(tables):
    won = (tables.deals["outcome"] == "won").to_numpy()
    is_open = (tables.deals["outcome"] == "open").to_numpy()
    rating = np.where(is_open, "Warm", np.where(won, "Hot", "Cold"))
    audit = audit_tables(with_deals(tables, Rating=rating, Probability=np.where(is_open, 50.0, 100.0 * won)))
    assert verdicts(audit) == {"Rating": ("stop", "outcome"), "Probability": ("stop", "outcome")}


@pytest.mark.parametrize(
    ("name", "is_suspect"),
    [("Rating", True), ("Probability (%)", True), ("Status Reason", True), ("credit_rating", False)],
)
def test_a_verdict_on_the_deal_that_only_leans_to_the_outcome_is_suspect_by_its_name(name, is_suspect):
    frame, won, stepped_in, rng = deals()
    moved = rng.random(len(won))
    frame[name] = np.where(
        moved < 0.3, np.where(won, "Hot", "Cold"), rng.choice(["Hot", "Warm", "Cold"], len(won))
    )
    assert verdicts(audit_columns(frame, won, stepped_in)) == (
        {name: ("warn", "outcome")} if is_suspect else {}
    )
    frame[name] = rng.permutation(frame[name])
    assert audit_columns(frame, won, stepped_in).lines() == []


def test_an_account_missing_on_open_deals_only_stops(tables):
    is_open = (tables.deals["outcome"] == "open").to_numpy()
    account = infer(
        pd.Series(np.where(is_open & (np.arange(len(is_open)) % 3 > 0), None, "Cancity"), dtype="str")
    )
    audit = audit_tables(with_deals(tables, account=account))
    assert verdicts(audit) == {"account": ("stop", "openness")}
    assert re.match(
        r"it is empty on \d\d% of the open deals and on 0% of the closed ones; so", audit.findings[0].why
    )


def test_a_competitor_found_late_is_no_leak_where_its_history_is_on_record(tables):
    deals = tables.deals
    is_open = (deals["outcome"] == "open").to_numpy()
    found_late = deals["competitor"].mask(~is_open, "Altira").mask(is_open)
    closed = deals[~is_open]
    halfway = closed["created_at"] + (closed["closed_at"] - closed["created_at"]) / 2
    changes = pd.DataFrame(
        {"deal_id": closed["deal_id"], "column": "competitor", "value": "Altira", "changed_at": halfway}
    )
    changes = changes.assign(recorded_at=halfway).astype({"column": "str", "value": "str"})
    unknown = replace(with_deals(tables, competitor=found_late), deal_changes=tables.deal_changes.iloc[:0])
    assert verdicts(audit_tables(unknown)) == {"competitor": ("stop", "openness")}
    assert audit_tables(replace(unknown, deal_changes=changes.reset_index(drop=True))).lines() == []


def test_a_dummy_customer_on_open_deals_counts_as_none(tables):
    is_open = tables.deals["outcome"] == "open"
    dummy = tables.deals["customer_id"].mask(is_open, "unknown")
    assert verdicts(audit_tables(with_deals(tables, customer_id=dummy))) == {
        "customer_id": ("stop", "openness")
    }


def test_how_long_a_deal_took_and_when_it_ended_stop(tables):
    closed, created = tables.deals["closed_at"], tables.deals["created_at"]
    took = (closed - created).dt.total_seconds() / 86_400
    signed = closed.dt.strftime("%m/%d/%Y")
    audit = audit_tables(
        with_deals(tables, span=took.round().fillna(12), invoice=signed.fillna("01/31/2025"))
    )
    assert verdicts(audit)["span"] == ("stop", "accumulates")
    assert verdicts(audit)["invoice"] == ("stop", "close date")


def test_a_column_first_filled_after_the_closing_is_suspect(tables):
    deals = tables.deals
    late = deals[deals["outcome"] != "open"].iloc[::4]
    changes = pd.DataFrame(
        {
            "deal_id": late["deal_id"],
            "column": "competitor",
            "value": "Altira",
            "changed_at": late["closed_at"] + pd.Timedelta(1, "h"),
            "recorded_at": late["closed_at"] + pd.Timedelta(1, "h"),
        }
    )
    audit = audit_tables(replace(tables, deal_changes=changes.reset_index(drop=True)))
    assert verdicts(audit) == {"competitor": ("warn", "after closing")}


def test_an_amount_zeroed_at_closing_is_judged_by_what_it_was_before(tables):
    tables = replace(tables, deal_changes=tables.deal_changes.iloc[:0])
    deals = tables.deals
    lost = deals[deals["outcome"] == "lost"]
    zeroed = deals["amount"].mask(deals["outcome"] == "lost", 0.0)
    assert verdicts(audit_tables(with_deals(tables, amount=zeroed))) == {"amount": ("stop", "outcome")}
    both = [
        pd.DataFrame({"deal_id": lost["deal_id"], "value": value, "changed_at": at})
        for value, at in (
            (lost["amount"].map(str, na_action="ignore"), lost["created_at"]),
            ("0", lost["closed_at"]),
        )
    ]
    changes = pd.concat(both, ignore_index=True).assign(column="amount")
    changes = changes.assign(value=changes["value"].astype("str"), recorded_at=changes["changed_at"])
    known = replace(with_deals(tables, amount=zeroed), deal_changes=changes)
    assert audit_tables(known).lines() == []


def test_a_copy_of_the_choice_stops():
    frame, won, stepped_in, rng = deals()
    frame["co_sell"] = np.where(stepped_in, "Co-Sell", "For Visibility Only")
    frame["asked"] = rng.random(len(won)) < np.where(stepped_in, 0.8, 0.2)  # foretells it, and is honest
    assert verdicts(audit_columns(frame, won, stepped_in)) == {"co_sell": ("stop", "treatment")}


def test_ids_free_text_and_dates_are_named():
    frame, won, stepped_in, rng = deals()
    n = len(won)
    frame["ticket_id"] = rng.permutation(n) + 1000
    frame["note"] = [f"they said that {i} is too much" for i in range(n)]
    frame["email"] = [f"a{i}@b.example" for i in range(n)]
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n), "D")
    frame["kick_off"] = days.strftime("%Y-%m-%d")
    frame["Actual Close"] = days.strftime("%m/%d/%Y")
    assert verdicts(audit_columns(frame, won, stepped_in)) == {
        "ticket_id": ("warn", "id"),
        "note": ("warn", "free text"),
        "email": ("warn", "id"),
        "kick_off": ("warn", "close date"),
        "Actual Close": ("stop", "close date"),
    }


def test_a_total_of_times_stops():
    frame, won, stepped_in, rng = deals()
    frame["days_a"], frame["days_b"] = rng.integers(0, 50, (2, len(won)))
    frame["days_c"] = frame["days_a"] + frame["days_b"]
    assert verdicts(audit_columns(frame, won, stepped_in)) == {"days_c": ("stop", "accumulates")}


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("days_to_close", "stop"),
        ("PushCount", "stop"),
        ("num_contacted_notes", "stop"),
        ("n_emails", "stop"),
        ("calls", "warn"),  # perhaps those before the decision
        ("days_to_expected_close", "warn"),  # perhaps as it was expected then
        ("calls_before", None),
        ("days_since_last_closed_deal", None),
        ("payment_days", None),
    ],
)
def test_a_name_that_runs_until_the_closing_counts_with_the_figures(name, verdict):
    frame, won, stepped_in, rng = deals()
    frame[name] = rng.poisson(np.where(won, 3, 5))
    assert verdicts(audit_columns(frame, won, stepped_in)).get(name) == (verdict and (verdict, "accumulates"))


def test_shares_of_something_else_are_only_suspect():
    frame, won, stepped_in, rng = deals()
    frame["hardware"] = rng.random(len(won))
    frame["software"] = 1 - frame["hardware"]
    found = verdicts(audit_columns(frame, won, stepped_in))
    assert found == {"hardware": ("warn", "accumulates"), "software": ("warn", "accumulates")}


def test_a_column_is_kept_when_a_human_has_allowed_it():
    frame, won, stepped_in, _ = deals()
    frame["Probability"] = np.where(won, 100, 0)
    for frame_name, allow in (("Probability", "Probability"), ("deal_Probability", "Probability")):
        audit = audit_columns(frame.rename(columns={"Probability": frame_name}), won, stepped_in, [allow])
        audit.refuse()
        assert audit.to_list()[0]["allowed"]
        assert audit.lines()[0].startswith(f"'{frame_name}' allowed by you (outcome): ")
        assert allowed_before({"audit": audit.to_list()}) == (frame_name,)


def test_the_refusal_names_the_column_the_reason_and_the_way_out():
    frame, won, stepped_in, _ = deals()
    frame["Probability"] = np.where(won, 100, 0)
    yes, no = int(won.sum()), int((~won).sum())
    message = (
        "1 column knows the future.\n"
        "  'Probability': by itself it tells a won deal from a lost one in 100.0% "
        f"of pairs (100: 100% won of {yes:,} and 0: 0% won of {no:,}); nothing known beforehand is that "
        "good, so it was written when the outcome was known\n"
        "Leave it out, or keep it after looking: --allow 'Probability'."
    )
    with pytest.raises(LeakageError, match=f"^{re.escape(message)}$"):
        audit_columns(frame, won, stepped_in).refuse()


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("amont", "the nearest is 'amount'"),
        ("AMOUNT", "the nearest is 'amount'"),
        ("Deal Size", "the nearest are 'Deal Size Class', 'Deal Size Category'"),
        ("xyz", "the columns are 'amount', 'industry', 'Deal Size Category', 'Deal Size Class'"),
    ],
)
def test_an_allowed_name_that_is_no_column_is_refused_with_near_ones(name, offered):
    frame, won, stepped_in, _ = deals(100)
    frame["Deal Size Category"] = frame["Deal Size Class"] = 1
    message = f"--allow names '{name}', which is no column here; {offered}."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        audit_columns(frame, won, stepped_in, [name])


def test_classes_are_told_from_their_number_on_all_rows_and_not_on_the_first_ones():
    frame, won, stepped_in, rng = deals(6000)
    frame["size"] = pd.cut(frame["amount"], [0, 1e4, 3e4, np.inf], labels=list("SML")).astype("str")
    exact = audit_columns(frame, won, stepped_in)
    assert verdicts(exact) == {"size": ("warn", "derived")}
    frame.loc[4000:, "size"] = rng.permutation(frame.loc[4000:, "size"])
    assert audit_columns(frame, won, stepped_in).lines() == []


def test_the_order_of_rows_and_columns_changes_no_verdict():
    frame, won, stepped_in, rng = deals()
    frame["Rating"] = leak("Rating", won, rng)
    shuffled = rng.permutation(len(won))
    turned = audit_columns(frame.iloc[shuffled, ::-1], won[shuffled], stepped_in[shuffled])
    assert (
        verdicts(turned) == verdicts(audit_columns(frame, won, stepped_in)) == {"Rating": ("stop", "outcome")}
    )


def test_the_documentation_names_every_rule_and_no_other():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    section = text.split("### Columns that know the future")[1].split("\n### ")[0]
    assert re.findall(r"^\| ([a-z ]+) \| (.+?) \|", section, flags=re.MULTILINE)[1:] == list(RULES.items())
