"""Runtime: device, locks, seeding, progress, files, environment, code digests."""
