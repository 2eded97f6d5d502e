"""Saying: warnings at the user's line, the closing table, and the report as JSON or HTML."""
