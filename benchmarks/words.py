"""The words of ``docs/benchmarks.md`` that do not come from a run."""

HEAD = """# Side by side

<!-- Written by `make bench`; edits are lost. Words: benchmarks/words.py. -->

Every learner was given the same decisions and judged on the same others, whose true effect is known because
the data was made. Each ran in a process of its own, on one thread; accuracy is on decisions that nothing was
learned from. To run it again: `make bench` (its own environment, from a lock of its own); parts of it with,
for example, `make bench ARGS="--rows 5000 --worlds smooth --seeds 0 1"`, which renews those lines.

- **error**: root mean squared error of the effect, in percentage points of the win probability; ± is the
  standard deviation between seeds. **R²**: 1 - squared error / variance of the true effects; below 0 is
  worse than one number for everybody. **rank**: Spearman's correlation with the truth.
- **regret**: points per decision lost to whoever knows the truth, stepping in wherever the effect is said to
  exceed a cost of 3 points. **slope**: of the truth on what was said; 1 is calibrated, above 1 too timid.
- **bias**: mean error in points. **sd**: standard deviation of the effects said, in points.
  **90% covers**, **width**: share of true effects within the 90% intervals, and their mean width in points;
  – where the package offers none of its own.
- **CPU s**: user and system time of `fit`, encoding included, imports not. **MB**: peak memory of the
  process, data and libraries included (where learners share one figure, that of the process which made their
  data, inherited). **ms a row**: median time of one answer with its reasons (for peers
  from a row already encoded, which favours them)."""

SETTINGS = """## Settings

Nuisances of every peer are LightGBM with stepin's own cheap settings, by rows (to 10,000 / to 100,000 /
above): learning rate 0.12, 60 / 83 / 166 trees of 7 / 15 / 31 leaves with at least 40 / 80 / 200 rows, 63
bins, 40% of the columns a tree, L2 5. The settings of each final stage were the best of those tried, on
seeds that no table uses: seven at 5,000 rows (three worlds, seeds 100 and 101), four to eight at 50,000
(three worlds, seed 100), one or three at 500,000 (smooth world, seed 100). With the nuisances' settings
there the peers do much worse at 5,000 rows. Columns of more than 50 levels (partner, city) are left out for
peers: as native categories, and as numbers encoded out of fold, they did worse with every peer tried.
Everything else is given as it is (missing values and categories natively) where the package takes that,
otherwise as medians with a flag and a column for each level.

Classifiers give probabilities, never labels: ours answer `predict` with the probability, because EconML's
`DRLearner` without `discrete_outcome`, and CausalML's regressors given a classifier, would take labels.
Above 100,000 rows stepin itself takes 83 trees of 31 leaves, each model learned from 100,000 rows at most.
metalearners 0.13.0 needs polars, which it does not name, and asks scikit-learn about classes in a way that
1.8 gave up; the bench mends both."""

LALONDE = """## LaLonde's job training

{treated} people of the NSW trial who were trained, among {rows:,} people of whom the others come from the CPS
survey; outcome: earnings in 1978, dollars (standard errors in brackets). The trial had controls of its own:
what it says is the benchmark.

Support, by stepin's own rules: {supported:,} rows, {treated_supported} of the {treated} trained and
{controls_supported:,} of the CPS's people. The others get no estimate: {rarely:,} would be trained with a
chance below 0.05, {nearly_always:,} with one above 0.95, and of {few_alike:,} more too few alike were seen
both ways. The question that trial and survey share is the effect on the trained: people of the CPS are
others than those whom the trial took. The same rule was therefore applied to both arms of the trial
({trial_supported} of {trial} rows), among whom chance decided. Peers and `stepin`: the mean of their
effects over the same trained people; `stepin, doubly robust`: the average on the trained from its scores."""

SIZE = """## Size

The smooth world; `fit` on one thread, `train` (fitting, judging, doubting, report) with the threads of its
default. Peak memory is that of the whole process, the table included."""

COMPANY = """## A company's CRM

The simulated CRM, from the first deal to the decision table on the disk: `make bench ARGS="--features"`.
Each step ran in a process of its own, with the threads of its default, and read what the step before had
written; peak memory is that of the whole process, libraries and tables included. `features, from files to
file` is what `stepin features` does: reading, checking, building and writing in one process."""

ENGINES = """## Engines

What was on record about a partner just before each stage entry of the simulated CRM: `partner_win_rate`, the
heaviest feature, and `amount_to_partner_usual`, the next. Every engine was given the same pandas frames and
had to give back a pandas frame; what that costs is part of its time. All answers are the same to nine digits,
or there would be no table. Each ran five times in a process of its own, with the threads of its default; the
fastest run counts. **MB added**: peak memory less what the process held with the questions read and the
engine loaded. **lines**: of code, docstring and SQL. To run it again: `make bench ARGS="--engines"`."""

ENGINES_CHOICE = """The rule: the engine that reads best within twice the time of the fastest. It is
`EventLog` (`features/as_of.py`, numpy). A feature says in one line which events it counts before which
moment, the deal asked about is passed over by name, and events at the same time need no care. With pandas and
polars the frames must be sorted, the running columns made beforehand and told apart after the join, for about
the same time or less, and more memory. In SQL, events at the same time must be grouped by hand, or the answer
hangs on the order of the rows; it is the slowest here. polars and DuckDB would also be one more thing to
install."""

SERVING = """## What an answer costs

`stepin serve` answers `POST /v1/recommendations` from a model of the simulated CRM: with reasons, sentences,
intervals and a playbook. Beside it run a raw ASGI application that reads the same body and writes it back
(uvicorn, uvloop, httptools: the least that a JSON route costs), and `mlflow models serve` with a boosted
uplift model that answers the same deals with its SHAP values. All run at the same time on the loopback, one
process each, and are asked in turns: single deals over eight connections at once (MLflow's over one), batches
over one. No two deals are alike, one value in ten is missing.
**CPU µs**: user and system time of the server's process a deal, median over the rounds; the client's is not
in it. **times the echo**: of the same rounds. **ready**: seconds from the start of the process to its first
answer. **MiB**: resident memory of the process that answers, and its proportional share (PSS). To run it
again: `make bench ARGS="--serving"`."""

WHERE_ANSWERS_GO = """Of the time of a single answer three tenths go into the scorecard (every value is
located, some 70 rows of 200 draws are summed, all later stages), a quarter into reasons, sentences and JSON,
a quarter into reading, HTTP and the door, a fifth into journal and log; of a deal in a batch a third goes
into sentences and a sixth into the scorecard. It is Python nearly everywhere: no single part would bring it
to the target."""

# Why, where a row needs it: (world, rows) -> words.
NOTES: dict[tuple[str, int], str] = {
    ("ibm", 5_000): (
        "Effects differ less here than in the made worlds. In some seeds so few rows do not show stepin that "
        "they differ at all, and it says little more than the average; the intervals are too narrow then."
    ),
    ("crm", 500_000): (
        "With so many rows the form is what limits: an effect that comes about over the stages still to come "
        "is no sum of terms of one and two features, and trees follow it further."
    ),
    ("sharp", 50_000): (
        "Where three conditions must meet, no sum of terms of one and two features can follow; trees can. "
        "The rank correlation of the best peer is the better one for the same reason, and stepin's intervals "
        "cover too little: what its form leaves out is estimated from pairs alone."
    ),
}

CPU = """`stepin` costs more CPU than the boosted peers, several times as much at 5,000 rows and two to four
times at 50,000: the target of half of the fastest peer's is missed. It goes into nine cross-fitted boosted
models, the sums over rows, the additive images that are served, and sampling the posterior. What it buys is
the error, an interval and exact reasons."""

TITLES = {
    "crm": "The simulated CRM as a flat table",
    "smooth": "Smooth world: effects that add up, some pairs",
    "sharp": "Sharp world: thresholds and three-way interactions, the worst case of an additive form",
    "ibm": "Real covariates (IBM's sales table) with a planted choice and effect",
    "constant": "One effect for all (4 points)",
    "zero": "No effect",
}
