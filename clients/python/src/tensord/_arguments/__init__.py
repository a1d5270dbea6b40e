"""What may be passed to the public calls, and how they are held to it: one table, and one place that checks."""
