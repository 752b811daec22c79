"""The engine's model: the declarations, their call graph, and everything computed from both."""
