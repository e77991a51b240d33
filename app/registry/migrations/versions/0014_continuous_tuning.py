"""The standing order to tune, and what was done by it"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "continuous_steps",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("said", sa.String(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=True),
        sa.Column("set_by", sa.String(length=64), nullable=True),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("encoder", sa.String(length=140), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("judged_until", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_continuous_steps")),
        sa.ForeignKeyConstraint(["job_id"], ["tuning_jobs.id"], name=op.f("fk_continuous_steps_job_id")),
    )
