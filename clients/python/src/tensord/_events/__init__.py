"""Following what happens on the server, from bytes to records."""
