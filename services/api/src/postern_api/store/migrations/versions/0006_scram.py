"""A SCRAM verifier beside the hash of each SMTP user's password. Those that are there have none until they are set anew."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("smtp_credentials", sa.Column("scram", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    raise NotImplementedError("restore the database from a backup")
