"""What the server's JSON says, as plain records. Nothing here asks or maps."""
