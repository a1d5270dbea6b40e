"""One tensor over mapped bytes: its element type, its views, its locks and its reference."""
