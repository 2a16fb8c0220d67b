"""Memory: what was said and learned, found again by its meaning and its words."""
