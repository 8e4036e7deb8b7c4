"""What a limiter does, in numbers that monitoring systems collect. No library of theirs enters here."""
