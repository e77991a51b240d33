"""Several services and trainers on one registry"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tuning_jobs", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    if op.get_context().dialect.name == "postgresql":  # SQLite's integers have 64 bits
        op.alter_column("encoders", "size_bytes", type_=sa.BigInteger(), existing_type=sa.Integer())
