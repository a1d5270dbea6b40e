"""The kernel's side: a region's file opened, locked, checked and mapped. Nothing here asks a server."""
