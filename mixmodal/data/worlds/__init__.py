"""Worlds with answers: sources whose pictures and sentences can be scored exactly."""
