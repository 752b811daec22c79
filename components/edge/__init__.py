"""Components at the platform's edges: what goes out, and what comes in."""
