"""Drift reports are found by the adapter that looked; those of an earlier release that name none are of ""."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("drift_reports", sa.Column("adapter", sa.Text(), nullable=False, server_default=""))
    reports = sa.table("drift_reports", sa.column("adapter", sa.Text()), sa.column("body", sa.JSON()))
    named = sa.func.coalesce(reports.c.body["adapter"].as_string(), "")
    op.execute(reports.update().values(adapter=named))
    op.drop_index("ix_drift_reports_site_verdict", "drift_reports")
    op.create_index("ix_drift_reports_site_adapter_id", "drift_reports", ["site", "adapter", "id"])
    op.create_index("ix_drift_reports_site_adapter_verdict", "drift_reports", ["site", "adapter", "verdict"])


def downgrade() -> None:
    op.drop_index("ix_drift_reports_site_adapter_verdict", "drift_reports")
    op.drop_index("ix_drift_reports_site_adapter_id", "drift_reports")
    op.create_index("ix_drift_reports_site_verdict", "drift_reports", ["site", "verdict"])
    op.drop_column("drift_reports", "adapter")
