"""Regions made, found, mapped, filled and sealed."""
