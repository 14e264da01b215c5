"""What the cloud side needs: keys, the TUF repository, issuing and watching campaigns, storing reports."""
