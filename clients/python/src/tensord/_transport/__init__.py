"""HTTP to one server: where it is, its connections, and requests with patience. It knows no routes."""
