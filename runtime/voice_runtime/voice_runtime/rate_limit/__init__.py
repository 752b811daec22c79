"""Rate limit: refuses requests early, before they overload the service.

`token_bucket`, `sliding_window` and `adaptive` decide if a request passes. `keyed` gives each tenant, user
or API key its own count in bounded memory. `gate` lets requests wait for their turn.
"""
