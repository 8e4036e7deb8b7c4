"""What limits are: rules, the book of them, and what they compile to."""
