"""What runs the shards: this machine's processes, or Ray's actors."""
