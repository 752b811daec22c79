"""The engine's projections that people and tools read."""
