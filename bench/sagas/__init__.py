"""Saga engines beside what their stores can do at most."""
