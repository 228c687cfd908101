"""The sentences on top of a report, each with its evidence."""
