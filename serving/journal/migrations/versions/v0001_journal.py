"""The first tables: answers, outcomes, overrides; events, ready rows; keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Written out rather than taken from `tables`, which tells what the newest version looks like.
_MOMENT = sa.DateTime(timezone=True).with_variant(sa.String(32), "sqlite")
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def upgrade() -> None:
    """Make all tables."""
    _answers()
    _what_came_back()
    _what_the_service_knows()
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text, primary_key=True),
        *(_text(name) for name in ("name", "secret_hash", "scopes")),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("revoked_at", _MOMENT),
        sa.Column("last_used_at", _MOMENT),
    )


def _answers() -> None:
    op.create_table(
        "answers",
        _text("recommendation_id"),
        _text("deal_id"),
        sa.Column("asked_at", _MOMENT, nullable=False),
        sa.Column("as_of", _MOMENT, nullable=False),
        _text("stage", nullable=True),
        _text("advice"),
        sa.Column("default_action_applied", sa.Boolean, nullable=False),
        *(
            sa.Column(name, sa.Float)
            for name in ("score", "uplift", "uplift_low", "uplift_high", "break_even")
        ),
        sa.Column("chance", sa.Float, nullable=False),
        _text("model_name", nullable=True),
        _text("model_version", nullable=True),
        *(_text(name) for name in ("model_digest", "role", "facts", "asked_by")),
        sa.PrimaryKeyConstraint("recommendation_id", "role", name="answers_pkey"),
    )


def _what_came_back() -> None:
    op.create_table(
        "outcomes",
        sa.Column("outcome_id", sa.Text, primary_key=True),
        _text("deal_id"),
        _text("outcome"),
        sa.Column("closed_at", _MOMENT),
        sa.Column("received_at", _MOMENT, nullable=False),
        _text("sent_by"),
        sa.CheckConstraint("outcome IN ('won', 'lost', 'open')", name="outcomes_outcome"),
    )
    op.create_index("outcomes_by_deal", "outcomes", ["deal_id"])
    op.create_table(
        "overrides",
        sa.Column("override_id", sa.Text, primary_key=True),
        _text("recommendation_id", nullable=True),
        *(_text(name) for name in ("deal_id", "decided", "reason")),
        sa.Column("received_at", _MOMENT, nullable=False),
        _text("sent_by"),
        sa.CheckConstraint("decided IN ('step_in', 'step_back')", name="overrides_decided"),
    )
    op.create_index("overrides_by_recommendation", "overrides", ["recommendation_id"])
    op.create_index("overrides_by_deal", "overrides", ["deal_id"])


def _what_the_service_knows() -> None:
    op.create_table(
        "events",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=True),
        *(_text(name) for name in ("event_id", "kind", "deal_id", "payload")),
        sa.Column("happened_at", _MOMENT, nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        _text("sent_by"),
        sa.UniqueConstraint("event_id", name="events_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_deal", "events", ["deal_id"])
    op.create_table(
        "ready_rows",
        sa.Column("deal_id", sa.Text, primary_key=True),
        sa.Column("as_of", _MOMENT, nullable=False),
        *(_text(name, nullable=True) for name in ("stage", "partner_id", "customer_id")),
        sa.Column("amount", sa.Float),
        _text("facts"),
        _text("feature_set", nullable=True),
        sa.Column("revision", _NUMBER, nullable=False),
    )
    op.create_index("ready_rows_by_revision", "ready_rows", ["revision"])
