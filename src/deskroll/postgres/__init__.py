"""PostgreSQL: the embedded server, connections, staging, publishing, guard and ledger. Knows no pipeline."""
