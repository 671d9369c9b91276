"""The declarations: what a record looks like, and what a pipeline is. They do nothing, and import nothing that does."""
