"""Held batches, predictions with the labels that come late, and drift reports on their way outside."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _batch_holds()
    _predictions()
    _late_labels()
    _deliveries()


def downgrade() -> None:
    op.drop_index("ix_drift_reports_site_verdict", "drift_reports")
    op.drop_table("deliveries")
    op.drop_table("late_labels")
    op.drop_table("predictions")
    op.drop_table("batch_holds")


def _batch_holds() -> None:
    op.create_table(
        "batch_holds",
        sa.Column("batch", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("batch", name="pk_batch_holds"),
        sa.ForeignKeyConstraint(["batch"], ["batches.number"], name="fk_batch_holds_batch"),
    )


def _predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("predicted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("adapter", "version", "site", "digest", name="pk_predictions"),
    )
    op.create_index("ix_predictions_digest", "predictions", ["digest"])


def _late_labels() -> None:
    op.create_table(
        "late_labels",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("arrived_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site", "digest", name="pk_late_labels"),
    )
    op.create_index("ix_late_labels_digest", "late_labels", ["digest"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("report", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.ForeignKeyConstraint(["report"], ["drift_reports.id"], name="fk_deliveries_report"),
        sa.UniqueConstraint("report", "target", name="uq_deliveries_report_target"),
    )
    op.create_index("ix_deliveries_next_attempt_at", "deliveries", ["next_attempt_at"])
    # Counting verdicts at every scrape must not read the reports themselves.
    op.create_index("ix_drift_reports_site_verdict", "drift_reports", ["site", "verdict"])
