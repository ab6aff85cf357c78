"""One deal, one answer."""
