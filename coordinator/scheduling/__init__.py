"""Which attempt a station runs next, and which stations are to be believed."""
