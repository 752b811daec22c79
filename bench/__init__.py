"""What things cost, side by side with peers in one run. Measured by hand, never as a timed test."""
