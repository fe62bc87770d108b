"""What stands behind tools.sweep."""
