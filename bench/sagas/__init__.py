"""Saga engines, compared with the limits of their stores."""
