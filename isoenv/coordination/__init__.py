"""Sessions, locks, messages, metrics and the status line: what the processes of a machine share."""
