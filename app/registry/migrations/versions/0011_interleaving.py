"""Two encoders in one answer, and which of them a hit is from"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("activations", sa.Column("canary_interleave", sa.Integer(), nullable=True))
    op.add_column("query_log", sa.Column("teams", sa.String(length=100), nullable=True))
    op.add_column("clicks", sa.Column("team", sa.String(length=1), nullable=True))
