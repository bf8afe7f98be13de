"""Pages and pictures that are made from records."""
