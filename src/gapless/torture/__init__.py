"""`gapless torture`: a real gateway under faults drawn from a seed, and an offline checker of what was heard.

`plan` draws who takes part and what goes wrong; `run` does it with real processes; every client and
publisher keeps a journal; `checker` compares the journals with the log. `plan`, `content`, `kinds` and
`checker` are pure.
"""
