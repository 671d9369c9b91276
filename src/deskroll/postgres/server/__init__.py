"""The PostgreSQL that deskroll runs itself if no other is named."""
