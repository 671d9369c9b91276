"""Daily help-desk and card-spend JSON as PostgreSQL tables that tell the truth."""
