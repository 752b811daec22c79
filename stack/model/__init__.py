"""The engine's model: declarations, joined by their calls, and everything computed from them."""
