"""The controllers: they decide who and when, over the Kubernetes protocol, without the database."""
