"""Quarantine entries: the batch by which the picture was stored after all; null while it is held back."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("quarantine", sa.Column("stored_in", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("quarantine", "stored_in")
