"""The cage that a policy's process locks itself into before it reads the first byte of the policy's bundle.

- `layers` says what the cage is made of, in which order it is closed, and what a machine must have of it.
- `kernel`, `calls` and `files` are what those layers are made with. Only the standard library and the kernel are used.
"""
