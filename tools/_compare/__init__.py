"""What stands behind tools.compare, and the intervals of tools.report."""
