"""Experiments: who asked by which rule, and what came of it"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("query_log", sa.Column("rule", sa.String(length=16), nullable=True))
    op.add_column("query_log", sa.Column("unit", sa.String(length=16), nullable=True))
    op.create_index(op.f("ix_query_log_generation"), "query_log", ["generation"])
    op.create_table(
        "experiments",
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tally", sa.JSON(), nullable=False),
        sa.Column("decided", sa.JSON(), nullable=True),
        sa.Column("settled", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("generation", name=op.f("pk_experiments")),
        sa.ForeignKeyConstraint(["generation"], ["activations.generation"], name=op.f("fk_experiments_generation")),
    )
