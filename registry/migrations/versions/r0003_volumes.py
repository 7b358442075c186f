"""Volumes: depth in voxels and spacing; both are null for a picture."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("samples", sa.Column("depth", sa.Integer(), nullable=True))
    op.add_column("samples", sa.Column("spacing_mm", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("samples", "spacing_mm")
    op.drop_column("samples", "depth")
