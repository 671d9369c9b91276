"""What needs neither a database nor Spark."""
