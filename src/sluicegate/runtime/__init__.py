"""What Python itself gives: the clock and the standard library's logging. The defaults of the layers above."""
