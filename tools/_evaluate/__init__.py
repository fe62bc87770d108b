"""What stands behind tools.evaluate: rows, rewards, answers on disk, figures, files."""
