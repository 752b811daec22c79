"""The saga engines, compared with the speed of their stores."""
