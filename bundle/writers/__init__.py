"""One file per format that PixNet writes."""
