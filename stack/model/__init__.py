"""The engine's model: what is declared, joined and computed."""
