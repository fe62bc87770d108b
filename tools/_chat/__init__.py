"""What stands behind tools.chat: the terminal, the conversation, its commands, a dataset's rows."""
