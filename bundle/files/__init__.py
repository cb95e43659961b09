"""Files from outside are read, and our own written, so that damage is found and nothing of others is lost."""
