"""Migrations of database `queue`."""
