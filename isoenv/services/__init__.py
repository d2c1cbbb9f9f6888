"""What an instance runs: services that are started, watched, stopped and shown."""
