"""What a configuration may hold: literals and code, the keys that a value suits, and whom to trust."""
