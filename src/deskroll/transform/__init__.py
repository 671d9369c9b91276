"""Records become rows: a contract is compiled to SQL, which an engine runs."""
