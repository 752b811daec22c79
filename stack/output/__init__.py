"""Files, documents and diagrams that are generated from the model."""
