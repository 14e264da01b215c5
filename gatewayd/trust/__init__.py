"""Who may decide what: TUF for releases and keys, signed envelopes for campaigns, the manufacturer's signature for images."""
