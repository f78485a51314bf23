"""How a policy comes into force on one edge, and how it goes: one table of states and arrows, and who follows it.

Start with `table`: it is the whole of it, drawn in docs/activation.md. `journal` keeps it on the disk, `gates` says
when an arrow may be taken, `steward` takes them between two trials.
"""
