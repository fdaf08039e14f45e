"""Revisions: every state that the policy ever had."""
