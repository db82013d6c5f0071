"""Popoto Kitchen: a food delivery on popoto's models, fields, relationships and queries."""
