"""A Gymnasium environment as a station: the same trials, records, judge's place and sandbox, and no arm."""
