"""Tests of bdloss, one file a module."""
