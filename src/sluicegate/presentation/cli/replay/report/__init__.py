"""What a replay tells: its figures, the tables for a terminal, and the page."""
