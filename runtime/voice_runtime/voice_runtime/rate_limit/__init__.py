"""Rate limit (layer L5): what cannot be served is refused early.

`token_bucket`, `sliding_window` and `adaptive` decide; `keyed` gives each tenant, user or API key a count of its own in
bounded memory; `gate` lets requests wait for their turn.
"""
