"""The application packages as a node implements them: bytes in, answers out. One module per package."""
