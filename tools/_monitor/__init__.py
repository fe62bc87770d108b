"""What stands behind tools/monitor.py: runs followed, their answers read, what looks wrong, the page and its server."""
