"""Rules that end a canary, what they look at, and why a generation was made"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("activations", sa.Column("canary_rules", sa.JSON(), nullable=True))
    op.add_column("activations", sa.Column("note", sa.String(), nullable=True))
    op.create_table(
        "signals",
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("empty", sa.Integer(), nullable=False),
        sa.Column("timed", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("seconds_squared", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("generation", "role", "minute", name=op.f("pk_signals")),
        sa.ForeignKeyConstraint(["generation"], ["activations.generation"], name=op.f("fk_signals_generation")),
    )
