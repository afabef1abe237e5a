"""The processes of one run: where they are, how they talk, and which signals they answer."""
