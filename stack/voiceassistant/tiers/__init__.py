"""The tiers of the platform: each module yields the components of its tier."""
