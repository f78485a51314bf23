"""Turns the folder that a run leaves into pictures and one page that a person can read anywhere.

It reads only `coordinator.db`, `recordings/*.mcap` and, where it stands, `summary.json`; a run that was cut short
gives a page too. `write.write_report(run_dir)` makes everything.
"""
