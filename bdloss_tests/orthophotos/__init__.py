"""Mirrors bdloss."""
