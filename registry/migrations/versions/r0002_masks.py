"""Masks: each sample's, and those that a later intake replaced."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("samples", sa.Column("mask", sa.String(64), nullable=True))
    op.create_table(
        "replaced_masks",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("mask", sa.String(64), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("site", "digest", "mask", name="pk_replaced_masks"),
        sa.ForeignKeyConstraint(
            ["site", "digest"], ["samples.site", "samples.digest"], name="fk_replaced_masks_site_digest"
        ),
        sa.ForeignKeyConstraint(["batch"], ["batches.number"], name="fk_replaced_masks_batch"),
    )


def downgrade() -> None:
    op.drop_table("replaced_masks")
    op.drop_column("samples", "mask")
