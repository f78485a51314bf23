"""Coding agents as researchers: caged, metered, and believed only as far as their diff is checked and tested.

- A client (Claude Code, Codex, kimi-code) runs in a cage: one folder to write, one socket to speak through.
- The proxy behind that socket holds the key, counts tokens, and stops at the budget.
- What comes out is the difference of a folder and one hypothesis; whatever the agent printed is a transcript.
"""
