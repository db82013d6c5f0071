"""Tests of popoto.pubsub."""
