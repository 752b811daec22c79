"""What is deployed, tier by tier: each module yields the components of its tier."""
